"""Runs Triton replicas on one machine and feeds them from the queue."""

from services.runtime.scheduling import prefer_few_thread_hops

prefer_few_thread_hops()
