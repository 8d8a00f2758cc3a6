"""Functions of one's own that say how many replicas a deployment should have."""
