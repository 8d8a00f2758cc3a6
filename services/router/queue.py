"""The router's side of the queue: publishes requests, hears that they are stored, hears replies.

A publish that was not confirmed is unknown, not failed: it is published again with the same message
id, so that JetStream keeps it once. After a reconnection everything still waited for is published
again, because requests are in the memory of nats-server.
"""

import json
import math
from collections.abc import Callable

import nats.errors
import structlog
from nats.aio.msg import Msg

from forebay.v1.envelope_pb2 import (
    OUTCOME_ABORTED,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
    ReplyEnvelope,
)
from services.router.body_arena import BodyArena
from services.router.counters import RouterCounters
from services.router.lost_replies import LostReplies
from services.router.pending import PendingCall, PendingCalls
from services.runtime.clock import Clock
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.outcomes import OutcomeError

log = structlog.get_logger()

ACCEPT_TIMEOUT_S = 2.0
MAX_PUBLISHES = 20
MAX_ABANDONED = 10_000
MAX_BACKLOG_BYTES = 8 << 20
"""Above this, what was not confirmed has not even left: a copy of it would only add to the wait."""

_STREAM_FULL = frozenset({10077, 10047, 10023, 10167})
"""JetStream's error codes for a stream at its limit of messages or bytes, and for storage."""


class RequestQueue:
    """Requests out, replies in."""

    def __init__(
        self,
        link: NatsLink,
        router_id: str,
        pending: PendingCalls,
        arena: BodyArena,
        clock: Clock,
        counters: RouterCounters,
        published: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares the queue; it works once the link is connected.

        Args:
            link: to NATS.
            router_id: names the subjects that replies come to.
            pending: the calls that wait.
            arena: keeps large bodies.
            clock: tells the time.
            counters: counts what happens.
            published: told the deployment of each request that is published.
        """
        self._published = published
        self._link = link
        self._router_id = router_id
        self._pending = pending
        self._arena = arena
        self._clock = clock
        self._counters = counters
        self._subscribed = False
        self._stream_missing = False
        self._unaccepted: dict[str, PendingCall] = {}
        self._abandoned: dict[str, float] = {}
        self._by_sequence: dict[int, PendingCall] = {}
        self._lost_replies = LostReplies(link)
        link.on_connected(self._on_connected)

    def publish(self, call: PendingCall) -> None:
        """Publishes a request, for the first time or again.

        Raises:
            OutcomeError: UNAVAILABLE if NATS is away.
        """
        now_s = self._clock.monotonic_s()
        remaining_s = call.deadline_s - now_s
        call.envelope.remaining_ms = max(0, int(remaining_s * 1000))
        call.published_s = now_s
        if call.accepted_sequence is not None:
            self._by_sequence.pop(call.accepted_sequence, None)
        call.accepted_sequence = None
        call.accepted_duplicate = False
        if call.accepted is not None:
            call.accepted.clear()
        self._unaccepted[call.request_id] = call
        try:
            # The TTL is in whole seconds; a queued request must not outlive its caller by more.
            ttl_s = max(1, math.ceil(remaining_s))
            self._link.client.send(
                subjects.request(call.deployment),
                call.envelope.SerializeToString(),
                reply=subjects.accepted(self._router_id, call.request_id),
                headers=f"Nats-Msg-Id: {call.message_id}\r\nNats-TTL: {ttl_s}\r\n".encode(),
            )
            call.publish_count += 1
            self._published(call.deployment)
        except nats.errors.Error as error:
            self._unaccepted.pop(call.request_id, None)
            raise OutcomeError(
                OUTCOME_UNAVAILABLE,
                "the queue (NATS) cannot be reached at the moment; try again in a second",
                retry_after_s=1.0,
            ) from error

    def finish(self, call: PendingCall, answered_by: ReplyEnvelope | None) -> None:
        """Forgets a call that has ended, and sees to what it leaves behind.

        Args:
            call: the call.
            answered_by: its final reply; None if it ended without one.
        """
        self._unaccepted.pop(call.request_id, None)
        if call.accepted_sequence is not None:
            self._by_sequence.pop(call.accepted_sequence, None)
        if call.block is None:
            return
        answered = answered_by is not None and answered_by.attempt_count <= 1
        if call.publish_count == 0 or (answered and call.publish_count == 1):
            self._arena.release(call.block)
        else:
            # An attempt may still read it: it can start until the deadline, and run for a while.
            until_s = call.deadline_s + call.attempt_limit_s + 5.0
            self._arena.release_at(call.block, until_s)

    def abandon(self, call: PendingCall) -> None:
        """Takes a request that nobody waits for any more out of the queue, if it is still there."""
        if not self._link.client.is_connected or call.envelope.keep_reply:
            return
        try:
            self._link.client.send(subjects.cancel(call.deployment), call.request_id.encode())
            if call.accepted_sequence is not None:
                self._delete(call.accepted_sequence)
            elif len(self._abandoned) < MAX_ABANDONED:
                self._abandoned[call.request_id] = call.published_s
        except nats.errors.Error as error:
            log.warning("queue.abandon_failed", request_id=call.request_id, error=str(error))

    async def sweep(self) -> None:
        """Publishes again what the server has not confirmed in time, and what it has forgotten.

        Called every half second.
        """
        now_s = self._clock.monotonic_s()
        lost, self._stream_missing = self._stream_missing, False
        if lost:
            log.warning("queue.stream_missing")
            await streams.ensure_requests(self._link.jetstream)
        for call in list(self._unaccepted.values()):
            if self._link.client.backlog_bytes > MAX_BACKLOG_BYTES:
                break
            early = now_s - call.published_s < ACCEPT_TIMEOUT_S
            if (early and not lost) or call.reply.done():
                continue
            if call.publish_count >= MAX_PUBLISHES:
                call.fail(_not_stored())
                continue
            self._publish_again(call)
        for request_id, published_s in list(self._abandoned.items()):
            if now_s - published_s > 2 * ACCEPT_TIMEOUT_S:
                del self._abandoned[request_id]
        for call in await self._lost_replies.find(now_s):
            log.warning("queue.reply_lost", request_id=call.request_id)
            # Under another id: as itself it would pass for a duplicate.
            call.message_id = f"{call.request_id}.{call.publish_count}"
            self._publish_again(call)

    def _publish_again(self, call: PendingCall) -> None:
        try:
            self.publish(call)
        except OutcomeError as error:
            # Kept: the next connection publishes all that is pending.
            log.info("queue.publish_postponed", request_id=call.request_id, reason=error.message)

    async def _on_connected(self) -> None:
        await streams.ensure_requests(self._link.jetstream)
        await streams.ensure_kept_replies(self._link.jetstream)
        client = self._link.client
        if not self._subscribed:
            await client.subscribe_direct(
                subjects.accepted(self._router_id, "*"), self._on_accepted
            )
            await client.subscribe_direct(subjects.reply(self._router_id, "*"), self._on_reply)
            await client.subscribe(subjects.body(self._router_id), cb=self._on_fetch)
            advisory = f"{subjects.MAX_DELIVERIES_ADVISORY}.{streams.REQUESTS}.>"
            await client.subscribe(advisory, cb=self._on_max_deliveries)
            self._subscribed = True
        self._by_sequence.clear()
        waiting = [call for call in self._pending.all() if not call.reply.done()]
        for call in waiting:
            if call.publish_count:
                self._publish_again(call)
        if waiting:
            log.info("queue.published_again", count=len(waiting))

    def _on_accepted(self, subject: bytes, _: bytes, data: bytes, __: bytes | None) -> None:
        request_id = subject[subject.rindex(b".") + 1 :].decode()
        call = self._unaccepted.get(request_id)
        if not data:
            # Nobody listens on the subject: the stream was lost with nats-server's memory. The
            # sweep makes sure of it and publishes again.
            self._stream_missing = True
            return
        self._unaccepted.pop(request_id, None)
        ack = json.loads(data)
        if "error" in ack:
            if call is not None:
                call.fail(_refused(ack["error"]))
            return
        sequence = ack["seq"]
        if self._abandoned.pop(request_id, None) is not None:
            self._delete(sequence)
        elif call is not None:
            call.accepted_sequence = sequence
            call.accepted_duplicate = ack.get("duplicate", False)
            self._by_sequence[sequence] = call
            # Of a request with an idempotency key the reply is kept, and found there.
            if call.accepted_duplicate and call.publish_count > 1 and not call.envelope.keep_reply:
                self._lost_replies.doubt(call, sequence, self._clock.monotonic_s())
            if call.accepted is not None:
                call.accepted.set()

    def _on_reply(self, _: bytes, __: bytes, data: bytes, ___: bytes | None) -> None:
        self.settle(ReplyEnvelope.FromString(data))

    def settle(self, reply: ReplyEnvelope) -> None:
        """Gives a reply to the call that waits for it; the first final one wins."""
        call = self._pending.get(reply.request_id)
        if call is None or call.reply.done():
            self._counters.late_replies += 1
        elif reply.final:
            call.reply.set_result(reply)

    async def _on_fetch(self, msg: Msg) -> None:
        call = self._pending.get(msg.data.decode())
        body = b"" if call is None or call.block is None else self._arena.load(call.block)
        await self._link.client.publish(msg.reply, body)

    async def _on_max_deliveries(self, msg: Msg) -> None:
        sequence = json.loads(msg.data)["stream_seq"]
        call = self._by_sequence.pop(sequence, None)
        if call is not None:
            call.fail(
                OutcomeError(
                    OUTCOME_ABORTED,
                    f"every one of {streams.MAX_DELIVER} attempts ended without an answer: the "
                    "replicas or their nodes died or froze while they worked on this request",
                )
            )
            self._delete(sequence)

    def _delete(self, sequence: int) -> None:
        self._link.client.send(
            f"$JS.API.STREAM.MSG.DELETE.{streams.REQUESTS}",
            json.dumps({"seq": sequence, "no_erase": True}).encode(),
        )


def _refused(error: dict[str, object]) -> OutcomeError:
    if error.get("err_code") in _STREAM_FULL:
        return OutcomeError(
            OUTCOME_RESOURCE_EXHAUSTED,
            "the queue is full; try again in a second, or add replicas",
            retry_after_s=1.0,
        )
    return OutcomeError(
        OUTCOME_UNAVAILABLE,
        f"the queue refused the request: {error.get('description', 'no reason given')}",
        retry_after_s=1.0,
    )


def _not_stored() -> OutcomeError:
    return OutcomeError(
        OUTCOME_UNAVAILABLE,
        f"the queue did not confirm the request after {MAX_PUBLISHES} attempts; try again",
        retry_after_s=1.0,
    )
