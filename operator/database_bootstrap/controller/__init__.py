"""The controller: kopf watches, a work queue of our own decides when a resource is visited."""
