"""Keeps the node provider out of the decision path: a slot of one, of which the latest wins.

Whatever the provider does and however long it takes, a look at the mesh only puts what it found
into the slot. The provider hears of every change, again after a failure, and every so often while
anything is missing or may go; of nothing that is older than STALE_AFTER_S, so that an autoscaler
that does not lead any more falls silent.
"""

import asyncio

import structlog

from forebay.v1.autoscaler_pb2 import NodeDemand
from services.autoscaler.provider.protocol import NodeProvider, ProviderError
from services.runtime.clock import Clock

log = structlog.get_logger()

STALE_AFTER_S = 5.0
RETRY_S = 10.0


class Feed:
    """Tells the provider what was found.

    Attributes:
        applied_count: calls of the provider that succeeded.
        failed_count: calls that failed.
    """

    def __init__(self, provider: NodeProvider, clock: Clock) -> None:
        """Nothing was found yet.

        Args:
            provider: whom to tell.
            clock: tells how old an offer is.
        """
        self.applied_count = 0
        self.failed_count = 0
        self._provider = provider
        self._clock = clock
        self._offer: tuple[NodeDemand, frozenset[str]] | None = None
        self._offered_s = 0.0
        self._content: bytes | None = None
        self._changed = asyncio.Event()
        self._error = ""

    @property
    def releases(self) -> bool:
        """Whether the provider can release nodes."""
        return self._provider.releases

    @property
    def note(self) -> str:
        """What people should know of the provider, in one line; empty if there is nothing."""
        return self._error or self._provider.note

    def offer(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        """Takes what a look found; never waits. To be called after every look.

        Args:
            demand: what is missing and what may go.
            reporting: ids of the nodes that report.
        """
        content = _content(demand)
        stale = self._is_stale()
        self._offer, self._offered_s = (demand, reporting), self._clock.monotonic_s()
        # Of a new autoscaler nobody needs to hear that nothing is missing.
        if content != (self._content or b"") or (stale and content):
            self._changed.set()
        self._content = content

    async def run(self) -> None:
        """Tells the provider, for ever."""
        while True:
            try:
                async with asyncio.timeout(RETRY_S if self._error else self._provider.repeat_s):
                    await self._changed.wait()
            except TimeoutError:
                if not (self._content or self._error or self._provider.busy):
                    continue
            if self._offer is None or self._is_stale():
                self._changed.clear()
                self._error = ""
                continue
            self._changed.clear()
            await self._apply(*self._offer)

    async def _apply(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        try:
            await self._provider.apply(demand, reporting)
        except ProviderError as error:
            self.failed_count += 1
            self._error = str(error)
            log.warning("provider.failed", error=self._error, failed_count=self.failed_count)
            return
        self._error = ""
        self.applied_count += 1

    def _is_stale(self) -> bool:
        return self._clock.monotonic_s() - self._offered_s > STALE_AFTER_S


def _content(demand: NodeDemand) -> bytes:
    """What is said, whenever it was found; empty if nothing is missing and nothing may go."""
    said = NodeDemand(unplaced=demand.unplaced, releasable_nodes=demand.releasable_nodes)
    return bytes(said.SerializeToString(deterministic=True))
