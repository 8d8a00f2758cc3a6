"""The `docker` runtime: each Triton is a container that the node's launcher starts."""
