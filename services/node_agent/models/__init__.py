"""What a replica needs on its node: model, Python environment, volumes."""
