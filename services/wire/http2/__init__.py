"""gRPC over plain HTTP/2 on the event loop itself, where grpcio costs too much."""
