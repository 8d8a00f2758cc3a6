"""A task on its way through a replica."""

import asyncio
from dataclasses import dataclass, field

from forebay.v1.task_record_pb2 import TaskEnvelope, TaskProgress


@dataclass(slots=True, eq=False)
class OngoingTask:
    """A task that was delivered and is not settled.

    Attributes:
        envelope: the task.
        ack_subject: where the delivery is settled.
        delivery: deliveries so far, counting this one.
        delivered_s: monotonic time of the delivery.
        progress_s: monotonic time of the last word to the queue.
        limit_s: how long its attempt may run.
        known: what is known of earlier attempts.
        alone: it must have the replica to itself.
        job: what works on it; done once it is settled.
        started_s: monotonic time at which Triton got it; None before.
        started_server_s: the same by nats-server's clock, seconds since the epoch.
        stopped_s: monotonic time at which Triton was done with it; None before.
        over_limit: it has run longer than an attempt may, and Triton is ended for it.
        suspect: so it seems, but others were inside, who may have kept it waiting.
        cancelled_s: monotonic time of the word that it was cancelled; None if there was none.
        connections: how often NATS had been connected to when it was delivered.
        silenced: it was given back; nothing more is said of this delivery.
    """

    envelope: TaskEnvelope
    ack_subject: str
    delivery: int
    delivered_s: float
    progress_s: float
    limit_s: float
    known: TaskProgress = field(default_factory=TaskProgress)
    alone: bool = False
    job: "asyncio.Task[None] | None" = None
    started_s: float | None = None
    started_server_s: float = 0.0
    stopped_s: float | None = None
    over_limit: bool = False
    suspect: bool = False
    cancelled_s: float | None = None
    connections: int = 0
    silenced: bool = False

    @property
    def runs(self) -> bool:
        """Whether Triton has it now."""
        return self.started_s is not None and self.stopped_s is None

    @property
    def sequence(self) -> int:
        """Place of its message in the queue."""
        return int(self.ack_subject.rsplit(".", 4)[1])

    @property
    def attempt(self) -> int:
        """Which attempt this is, of those that count, from 1."""
        return int(self.known.failed_count) + 1
