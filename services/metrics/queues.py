"""What JetStream knows of each deployment's queue, asked of the consumer's leader every second.

Not known is a value: what could not be read for STALE_AFTER_S is left out, never taken for zero.
"""

import asyncio
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog

from services.metrics.window import ArrivalWindow, QueueState
from services.runtime.clock import Clock
from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

POLL_INTERVAL_S = 1.0
POLL_TIMEOUT_S = 2.0
STALE_AFTER_S = 5.0
MAX_CONCURRENT_POLLS = 16


@dataclass(slots=True)
class _Queue:
    arrivals: ArrivalWindow
    state: QueueState | None = None
    state_s: float = 0.0


class Queues:
    """The state of every deployment's queue."""

    def __init__(
        self, link: NatsLink, deployments: KvMirror, clock: Clock, window_s: float
    ) -> None:
        """Knows nothing until `run` does."""
        self._link = link
        self._deployments = deployments
        self._clock = clock
        self._window_s = window_s
        self._queues: dict[str, _Queue] = {}
        self._gate = asyncio.Semaphore(MAX_CONCURRENT_POLLS)

    def deployments(self) -> set[str]:
        """Ids of all declared deployments."""
        return set(self._deployments.entries("spec."))

    def state(self, deployment: str) -> tuple[QueueState, float] | None:
        """A queue's state and its age in seconds; None if it is not known."""
        queue = self._queues.get(deployment)
        if queue is None or queue.state is None:
            return None
        age_s = self._clock.monotonic_s() - queue.state_s
        return None if age_s > STALE_AFTER_S else (queue.state, age_s)

    def arrivals_per_second(self, deployment: str) -> float | None:
        """Requests stored per second over the window; None if it is not known."""
        if self.state(deployment) is None:
            return None
        return self._queues[deployment].arrivals.per_second(self._clock.monotonic_s())

    async def run(self) -> None:
        """Polls for ever."""
        while True:
            if self._link.connected:
                await self.poll()
            await asyncio.sleep(POLL_INTERVAL_S)

    async def poll(self) -> None:
        """Asks for the state of every queue once."""
        wanted = self.deployments()
        for gone in self._queues.keys() - wanted:
            del self._queues[gone]
        async with asyncio.TaskGroup() as group:
            for deployment in wanted:
                group.create_task(self._poll_one(deployment))

    async def _poll_one(self, deployment: str) -> None:
        queue = self._queues.setdefault(deployment, _Queue(ArrivalWindow(self._window_s)))
        try:
            async with self._gate, asyncio.timeout(POLL_TIMEOUT_S):
                info = await streams.request_consumer_info(self._link.jetstream, deployment)
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            log.warning(
                "queues.poll_failed", deployment=deployment, error=str(error) or repr(error)
            )
            return
        if info is None:
            # A deployment whose consumer is missing has a queue that nobody knows.
            queue.state = None
            return
        now_s = self._clock.monotonic_s()
        queue.state = QueueState(
            incarnation=str(info.created),
            pending=info.num_pending or 0,
            delivered=info.delivered.consumer_seq if info.delivered else 0,
            ongoing=info.num_ack_pending or 0,
            redelivered=info.num_redelivered or 0,
        )
        queue.state_s = now_s
        queue.arrivals.add(now_s, queue.state)
