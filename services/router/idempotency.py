"""One visible result per idempotency key, whichever router a repeat reaches.

The reply to a keyed request goes to a stream that keeps the first one for a while. A repeat finds
it there, or waits for it on the same subject, or, if the first attempt at the request is gone from
the queue without a reply, publishes it again under the next message id.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import RawStreamMsg

from forebay.v1.envelope_pb2 import OUTCOME_INTERNAL, OUTCOME_UNAVAILABLE, ReplyEnvelope
from services.router.pending import PendingCall, PendingCalls
from services.router.queue import RequestQueue
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.outcomes import OutcomeError

log = structlog.get_logger()

MAX_TURNS = 8
"""How often one key is published anew within the server's window for duplicates."""

LOOK_AGAIN_S = 1.0
LOOK_BYTES_PER_S = 4 << 20
"""How often a request that another caller queued is looked for. The server answers with the whole
request, so large ones are looked for less often: one of 8 MiB every three seconds."""

CLEAN_UP_S = 0.1

Publish = Callable[[PendingCall], None]


def keyed_request_id(key: str, body: bytes) -> str:
    """Request id of an idempotent request: the same for the same key and content."""
    digest = sha256()
    digest.update(key.encode())
    digest.update(b"\0")
    digest.update(body)
    return digest.hexdigest()[:48]


class KeptReplies:
    """Answers keyed calls.

    Of the calls of one request id on this router one leads: it asks, publishes and hears. The
    others share its reply; if it ends without one, one of them goes on by itself.
    """

    def __init__(self, link: NatsLink, queue: RequestQueue, pending: PendingCalls) -> None:
        """Works once the link is connected."""
        self._link = link
        self._queue = queue
        self._pending = pending
        self._leading: dict[str, asyncio.Future[ReplyEnvelope | None]] = {}

    async def answer(self, call: PendingCall, publish: Publish) -> ReplyEnvelope:
        """The one reply for a keyed call.

        Args:
            call: the call, not yet pending. Whoever asks fails it at its deadline; nothing here
                outlasts that.
            publish: publishes a call to the queue.

        Raises:
            OutcomeError: if there is none in time.
        """
        self._pending.add(call)
        repeated = False
        try:
            while (under_way := self._leading.get(call.request_id)) is not None:
                repeated = True
                watched: set[asyncio.Future[Any]] = {under_way, call.reply}
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                shared = under_way.result() if under_way.done() else None
                if shared is not None:
                    return shared
                if call.reply.done():
                    return call.reply.result()
            return await self._lead(call, publish, repeated)
        finally:
            self._pending.remove(call)

    async def _lead(self, call: PendingCall, publish: Publish, repeated: bool) -> ReplyEnvelope:
        ended: asyncio.Future[ReplyEnvelope | None] = asyncio.get_running_loop().create_future()
        self._leading[call.request_id] = ended
        self._pending.lead(call)
        work = asyncio.create_task(self._work(call, publish, repeated))
        reply: ReplyEnvelope | None = None
        try:
            reply = await call.reply
            return reply
        finally:
            del self._leading[call.request_id]
            self._queue.finish(call, reply)
            ended.set_result(reply)
            work.cancel()
            await asyncio.wait({work}, timeout=CLEAN_UP_S)

    async def _work(self, call: PendingCall, publish: Publish, repeated: bool) -> None:
        """Sees to it that the call gets its reply, or its error."""

        async def on_reply(msg: Msg) -> None:
            self._queue.settle(ReplyEnvelope.FromString(msg.data))

        subscriptions: list[Subscription] = []
        try:
            for subject in (call.envelope.reply_subject, subjects.failed_reply(call.request_id)):
                subscription = await self._link.client.subscribe(subject, cb=on_reply)
                subscriptions.append(subscription)
            if not await self._settle_from_kept(call):
                await self._publish_in_turn(call, publish, repeated)
        except OutcomeError as error:
            call.fail(error)
        except (nats.errors.Error, TimeoutError):
            call.fail(_unavailable())
        except Exception:
            log.exception("kept.failed", request_id=call.request_id)
            sentence = "the router failed on this request; its log has the reason"
            call.fail(OutcomeError(OUTCOME_INTERNAL, sentence))
        finally:
            for subscription in subscriptions:
                await self._unsubscribe(subscription)

    async def _publish_in_turn(self, call: PendingCall, publish: Publish, repeated: bool) -> None:
        for turn in range(MAX_TURNS):
            call.message_id = f"{call.request_id}.{turn}"
            call.accepted = asyncio.Event()
            publish(call)
            await self._until_gone(call, repeated)
            if call.reply.done():
                return
        raise OutcomeError(
            OUTCOME_UNAVAILABLE,
            f"this idempotency key was tried {MAX_TURNS} times within "
            f"{streams.DUPLICATE_WINDOW_S:g} s and left no reply; try again later",
            retry_after_s=streams.DUPLICATE_WINDOW_S,
        )

    async def _until_gone(self, call: PendingCall, repeated: bool) -> None:
        """Waits until the call has its reply, or its request is gone and left none.

        A request that this call queued lives as long as the call. One that another caller queued
        expires with that caller, so it is looked for again and again.
        """
        assert call.accepted is not None
        while not call.reply.done():
            await call.accepted.wait()
            if not (call.accepted_duplicate or repeated):
                # Set again if the request is published again after a reconnection.
                call.accepted.clear()
            if not call.accepted.is_set():
                # Ours, or published again meanwhile.
                continue
            place = self._place(call)
            try:
                if (
                    not await self._is_queued(call.accepted_sequence)
                    and not await self._settle_from_kept(call)
                    and self._place(call) == place
                    and self._link.connected
                ):
                    return
            except (nats.errors.Error, TimeoutError) as error:
                log.info("kept.not_looked_up", request_id=call.request_id, error=str(error))
            await asyncio.sleep(LOOK_AGAIN_S + call.size / LOOK_BYTES_PER_S)

    def _place(self, call: PendingCall) -> tuple[int, int | None]:
        """Changes when nats-server may have lost its memory, and the call is published again."""
        return self._link.connections, call.accepted_sequence

    async def _settle_from_kept(self, call: PendingCall) -> bool:
        message = await self._get(
            streams.KEPT_REPLIES, subject=subjects.kept_reply(call.request_id)
        )
        if message is None:
            return False
        self._queue.settle(ReplyEnvelope.FromString(message.data or b""))
        return True

    async def _is_queued(self, sequence: int | None) -> bool:
        return sequence is not None and await self._get(streams.REQUESTS, seq=sequence) is not None

    async def _get(
        self, stream: str, seq: int | None = None, subject: str | None = None
    ) -> RawStreamMsg | None:
        try:
            return await self._link.jetstream.get_msg(stream, seq=seq, subject=subject)
        except nats.js.errors.NotFoundError:
            return None

    async def _unsubscribe(self, subscription: Subscription) -> None:
        try:
            await subscription.unsubscribe()
        except nats.errors.Error as error:
            log.info("kept.not_unsubscribed", error=str(error))


def _unavailable() -> OutcomeError:
    return OutcomeError(
        OUTCOME_UNAVAILABLE,
        "the queue (NATS) cannot be reached at the moment; try again in a second",
        retry_after_s=1.0,
    )
