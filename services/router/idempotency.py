"""One visible result per idempotency key, whichever router a repeat reaches.

The reply to a keyed request goes to a stream that keeps the first one for a while. A repeat finds
it there, or waits for it on the same subject, or, if the first attempt at the request is gone from
the queue without a reply, publishes it again under the next message id.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from forebay.v1.envelope_pb2 import OUTCOME_UNAVAILABLE, ReplyEnvelope
from services.router.pending import PendingCall, PendingCalls
from services.router.queue import RequestQueue
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.outcomes import OutcomeError

MAX_TURNS = 8
"""How often one key is published anew within the server's window for duplicates."""

_unavailable = "the queue (NATS) cannot be reached at the moment; try again in a second"


def keyed_request_id(key: str, body: bytes) -> str:
    """Request id of an idempotent request: the same for the same key and content."""
    digest = hashlib.sha256()
    digest.update(key.encode())
    digest.update(b"\0")
    digest.update(body)
    return digest.hexdigest()[:48]


class KeptReplies:
    """Answers keyed calls."""

    def __init__(self, link: NatsLink, queue: RequestQueue, pending: PendingCalls) -> None:
        """Works once the link is connected."""
        self._link = link
        self._queue = queue
        self._pending = pending

    async def answer(
        self, call: PendingCall, wait: Callable[[PendingCall], Awaitable[ReplyEnvelope]]
    ) -> ReplyEnvelope:
        """The one reply for a keyed call.

        Args:
            call: the call, not yet pending.
            wait: waits for a call's reply until its deadline.

        Raises:
            OutcomeError: if there is none in time.
        """
        under_way = self._pending.get(call.request_id)
        if under_way is not None:
            _chain(under_way, call)
            return await wait(call)
        self._pending.add(call)
        try:
            return await self._run(call, wait)
        finally:
            self._pending.remove(call)
            self._queue.finish(call, None)

    async def _run(
        self, call: PendingCall, wait: Callable[[PendingCall], Awaitable[ReplyEnvelope]]
    ) -> ReplyEnvelope:
        async def on_reply(msg: Msg) -> None:
            self._queue.settle(ReplyEnvelope.FromString(msg.data))

        try:
            subscriptions = [
                await self._link.client.subscribe(subject, cb=on_reply)
                for subject in (
                    call.envelope.reply_subject,
                    subjects.failed_reply(call.request_id),
                )
            ]
            try:
                kept = await self._find(call)
                if kept is not None:
                    return kept
                await self._publish_until_queued(call)
                return await wait(call)
            finally:
                if self._link.client.is_connected:
                    for subscription in subscriptions:
                        await subscription.unsubscribe()
        except (nats.errors.Error, TimeoutError) as error:
            raise OutcomeError(OUTCOME_UNAVAILABLE, _unavailable, retry_after_s=1.0) from error

    async def _publish_until_queued(self, call: PendingCall) -> None:
        for turn in range(MAX_TURNS):
            call.message_id = f"{call.request_id}.{turn}"
            call.accepted = asyncio.Event()
            self._queue.publish(call)
            accepted = asyncio.ensure_future(call.accepted.wait())
            try:
                watched: set[asyncio.Future[Any]] = {accepted, call.reply}
                await asyncio.wait(watched, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            finally:
                accepted.cancel()
            if call.reply.done() or not call.accepted_duplicate:
                return
            # Someone queued the same before. Still there: its reply will come to us as well.
            if await self._is_queued(call.accepted_sequence):
                return
            kept = await self._find(call)
            if kept is not None:
                self._queue.settle(kept)
                return

    async def _find(self, call: PendingCall) -> ReplyEnvelope | None:
        message = await self._get(
            streams.KEPT_REPLIES, subject=subjects.kept_reply(call.request_id)
        )
        return None if message is None else ReplyEnvelope.FromString(message.data or b"")

    async def _is_queued(self, sequence: int | None) -> bool:
        return await self._get(streams.REQUESTS, seq=sequence) is not None

    async def _get(
        self, stream: str, seq: int | None = None, subject: str | None = None
    ) -> RawStreamMsg | None:
        try:
            return await self._link.jetstream.get_msg(stream, seq=seq, subject=subject)
        except nats.js.errors.NotFoundError:
            return None


def _chain(under_way: PendingCall, call: PendingCall) -> None:
    """Gives a call the reply of another call of the same id on this router."""

    def copy(done: "asyncio.Future[ReplyEnvelope]") -> None:
        if call.reply.done() or done.cancelled():
            return
        error = done.exception()
        if error is None:
            call.reply.set_result(done.result())
        else:
            call.reply.set_exception(error)

    under_way.reply.add_done_callback(copy)
