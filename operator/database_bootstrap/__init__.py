"""A Kubernetes operator that bootstraps PostgreSQL databases and never loses a row."""
