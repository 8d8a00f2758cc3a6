"""How a service's process is scheduled: fewer wake-ups, more done at each.

Must not import grpc: what it sets is read when grpcore loads.
"""

import os

GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"
"""Socket events go straight to the poller instead of through threads of the event engine."""


def prefer_few_thread_hops() -> None:
    """Sets up grpcore for the request path; works only before grpc is imported."""
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)


def prefer_throughput() -> None:
    """Puts this process under SCHED_BATCH: waking another process does not push it off its core.

    Its children start under the same policy, Triton too: under the default one, each of its
    threads that wakes would push the agent off its core. No privilege is needed.
    """
    policy = os.SCHED_BATCH
    os.sched_setscheduler(0, policy, os.sched_param(0))
