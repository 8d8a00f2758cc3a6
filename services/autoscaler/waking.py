"""Cold starts: a router's word that a request waits becomes a decision at once."""

import asyncio
from itertools import islice

import nats.errors
import nats.js.errors
import structlog

from services.autoscaler.leadership import Leadership
from services.autoscaler.targets import Targets
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

ASK_TIMEOUT_S = 0.05
"""How long the consumer's leader is waited for; without its word one request is taken to wait."""

MAX_WAITING = 10_000
MAX_ASKED = 64


class Waking:
    """Listens to the routers."""

    def __init__(
        self, link: NatsLink, leadership: Leadership, targets: Targets, changed: asyncio.Event
    ) -> None:
        """Listens from the next connection on.

        Args:
            link: to NATS.
            leadership: only the leader decides.
            targets: decides.
            changed: set after each decision, so that the replicas are placed at once.
        """
        self._link = link
        self._leadership = leadership
        self._targets = targets
        self._changed = changed
        self._waiting: dict[str, None] = {}
        self._told = asyncio.Event()
        self._listening = False
        link.on_connected(self._listen)

    async def run(self) -> None:
        """Decides for whoever waits, for ever."""
        while True:
            await self._told.wait()
            self._told.clear()
            waiting, self._waiting = iter(self._waiting), {}
            # Side by side: a consumer's leader that is slow to answer delays no other deployment.
            while some := list(islice(waiting, MAX_ASKED)):
                await asyncio.gather(*map(self._wake, some))

    async def _listen(self) -> None:
        if not self._listening:
            await self._link.client.subscribe_direct(subjects.WAKES, self._on_wake)
            self._listening = True

    def _on_wake(self, subject: bytes, *_: object) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting[subject.rpartition(b".")[2].decode()] = None
            self._told.set()

    async def _wake(self, deployment: str) -> None:
        if not self._leadership.leading:
            return
        queued, ongoing = 1, 0
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                info = await streams.request_consumer_info(self._link.jetstream, deployment)
            if info is not None:
                queued, ongoing = info.num_pending or 0, info.num_ack_pending or 0
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            log.debug("wake.unasked", deployment=deployment, error=repr(error))
        target = self._targets.wake(deployment, queued, ongoing)
        log.info("scale.woken", deployment=deployment, queued=queued, target=target)
        self._changed.set()
