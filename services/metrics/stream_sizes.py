"""How full the mesh's streams are, and on how many nats-servers each is kept.

Asked of each stream's leader, which alone knows. What could not be asked for STALE_AFTER_S is not
known, and left out.
"""

import asyncio

import nats.errors
import nats.js.errors
import structlog
from nats.js.api import StreamInfo

from services.metrics.stream_metrics import StreamSize
from services.runtime.clock import Clock
from services.wire import streams, usage
from services.wire.nats_link import NatsLink
from services.wire.tasks import streams as task_streams

log = structlog.get_logger()

INTERVAL_S = 5.0
STALE_AFTER_S = 20.0

STREAMS = (
    streams.REQUESTS,
    streams.KEPT_REPLIES,
    streams.DECISIONS,
    task_streams.TASKS,
    task_streams.ENDED,
    task_streams.RESULTS,
    task_streams.PROGRESS,
    task_streams.DEAD,
    task_streams.CALLBACKS,
    task_streams.USAGE_NOTES,
    task_streams.ADVISORIES,
    usage.USAGE,
    f"KV_{streams.DEPLOYMENTS_BUCKET}",
    f"KV_{streams.ASSIGNMENTS_BUCKET}",
    f"KV_{streams.METADATA_BUCKET}",
    f"KV_{streams.SCALING_BUCKET}",
    f"KV_{streams.SCHEDULES_BUCKET}",
    # The autoscaler's own, which it names itself.
    "KV_FOREBAY_TASK_SWEEPS",
    f"OBJ_{streams.MODELS_BUCKET}",
)
"""The streams that grow with use, and those that nothing works without."""


class StreamSizes:
    """What is known of each stream."""

    def __init__(self, link: NatsLink, clock: Clock) -> None:
        """Knows nothing until `run` does.

        Args:
            link: to NATS.
            clock: tells how old an answer is.
        """
        self._link = link
        self._clock = clock
        self._known: dict[str, tuple[float, StreamSize]] = {}

    def current(self) -> list[StreamSize]:
        """What is known now, in the order of STREAMS."""
        oldest_s = self._clock.monotonic_s() - STALE_AFTER_S
        found = (self._known.get(stream) for stream in STREAMS)
        return [known[1] for known in found if known is not None and known[0] >= oldest_s]

    async def run(self) -> None:
        """Asks for ever."""
        while True:
            if self._link.connected:
                # Side by side: one without a leader does not answer for 5 s.
                await asyncio.gather(*(self._ask(stream) for stream in STREAMS))
            await asyncio.sleep(INTERVAL_S)

    async def _ask(self, stream: str) -> None:
        asked_s = self._clock.monotonic_s()
        try:
            info = await self._link.unless_lost(self._link.jetstream.stream_info(stream))
        except nats.js.errors.NotFoundError:
            self._known.pop(stream, None)
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            log.debug("streams.not_asked", stream=stream, error=str(error) or type(error).__name__)
        else:
            self._known[stream] = (asked_s, size_of(stream, info))


def size_of(stream: str, info: StreamInfo) -> StreamSize:
    """What a leader's answer says."""
    limit = info.config.max_bytes
    followers = (info.cluster.replicas if info.cluster else None) or []
    current = sum(1 for peer in followers if peer.current and not peer.offline)
    return StreamSize(
        stream,
        info.state.messages,
        info.state.bytes,
        limit if limit is not None and limit > 0 else None,
        info.config.num_replicas or 1,
        1 + current,
    )
