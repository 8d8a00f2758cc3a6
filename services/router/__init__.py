"""The front door: takes gRPC calls, queues them on JetStream, answers with the reply."""

from services.runtime.scheduling import prefer_few_thread_hops

prefer_few_thread_hops()
