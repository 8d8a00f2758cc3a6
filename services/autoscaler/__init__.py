"""Keeps deployments and models, and says what each node must run."""
