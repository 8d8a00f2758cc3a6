"""The front door: takes gRPC calls, queues them on JetStream, answers with the reply."""
