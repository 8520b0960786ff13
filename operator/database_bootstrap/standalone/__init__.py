"""The same line from files: resources, Secrets and ConfigMaps as documents, and no cluster."""
