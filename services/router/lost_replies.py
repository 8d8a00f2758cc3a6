"""Finds calls whose reply was lost.

A reply goes by core NATS: one that is sent while its router, or the nats-server between, is away
reaches nobody, and its request is acknowledged all the same. Published again, the request passes
for a duplicate for as long as nats-server remembers it, and its caller would wait until the
deadline.
"""

import asyncio
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog

from services.router.pending import PendingCall
from services.wire import streams
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

LOOK_AFTER_S = 1.0
"""By then a reply that was sent before its acknowledgement has come, if it comes."""

LOOKS_AT_ONCE = 100
"""Questions of one sweep, so that they are no load where many calls were published again."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    call: PendingCall
    sequence: int
    since_s: float


class LostReplies:
    """Calls that were published again and that nats-server had already."""

    def __init__(self, link: NatsLink) -> None:
        """None yet."""
        self._link = link
        self._doubts: dict[str, _Doubt] = {}

    def doubt(self, call: PendingCall, sequence: int, now_s: float) -> None:
        """Takes note of one.

        Args:
            call: the call.
            sequence: where its request was stored.
            now_s: monotonic time.
        """
        self._doubts[call.request_id] = _Doubt(call, sequence, now_s)

    async def find(self, now_s: float) -> list[PendingCall]:
        """Those whose request is stored no more, though no reply has come; each is told once."""
        due: list[_Doubt] = []
        for request_id, doubt in list(self._doubts.items()):
            if doubt.call.reply.done():
                del self._doubts[request_id]
            elif now_s - doubt.since_s >= LOOK_AFTER_S and len(due) < LOOKS_AT_ONCE:
                del self._doubts[request_id]
                due.append(doubt)
        gone = await asyncio.gather(*map(self._is_gone, due))
        return [
            doubt.call
            for doubt, is_gone in zip(due, gone, strict=True)
            if is_gone and not doubt.call.reply.done()
        ]

    async def _is_gone(self, doubt: _Doubt) -> bool:
        # Of the stream's leader: a copy that is behind may not have what is stored.
        look = self._link.jetstream.get_msg(streams.REQUESTS, doubt.sequence)
        try:
            await self._link.unless_lost(look)
        except nats.js.errors.NotFoundError:
            return True
        except (nats.errors.Error, TimeoutError) as error:
            log.info("queue.not_looked", error=str(error) or type(error).__name__)
            self._doubts.setdefault(doubt.call.request_id, doubt)
        return False
