"""Hosts deployments, places replicas on nodes and tells each node what to run."""
