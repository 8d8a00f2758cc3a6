"""Runs Triton replicas on one machine and feeds them from the queue."""
