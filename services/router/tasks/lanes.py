"""How far the replicas of a deployment have come in each lane of its queue."""

import nats.js.errors

from services.runtime.clock import Clock
from services.wire.nats_link import NatsLink
from services.wire.tasks import streams

KEPT_S = 1.0
MAX_KEPT = 10_000


class Lanes:
    """The place in the stream up to which tasks were delivered, asked at most once a second."""

    def __init__(self, link: NatsLink, clock: Clock) -> None:
        """Nothing known yet."""
        self._link = link
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, int]] = {}

    async def delivered(self, deployment: str, priority: int, kept_s: float = KEPT_S) -> int:
        """The last task of a lane that was delivered, by its sequence; 0 if none was.

        Args:
            deployment: id of the deployment.
            priority: of the lane.
            kept_s: how old what is said may be.

        Raises:
            nats.errors.Error: if the server cannot be asked.
        """
        lane = (deployment, priority)
        now_s = self._clock.monotonic_s()
        asked_s, sequence = self._known.get(lane, (-KEPT_S, 0))
        if now_s - asked_s < kept_s:
            return sequence
        sequence = 0
        try:
            info = await self._link.jetstream.consumer_info(
                streams.TASKS, streams.consumer(deployment, priority)
            )
            if info.delivered is not None:
                sequence = info.delivered.stream_seq
        except nats.js.errors.NotFoundError:
            # Nobody has submitted a task of this priority, or the deployment was deleted.
            pass
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[lane] = (now_s, sequence)
        return sequence
