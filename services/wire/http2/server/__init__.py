"""A gRPC server on the event loop."""
