"""The launcher: starts the containers of a node's replicas, and nothing else."""
