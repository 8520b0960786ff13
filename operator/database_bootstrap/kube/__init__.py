"""The cluster: the only importer of the Kubernetes client."""
