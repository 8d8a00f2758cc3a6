"""One inference, from the caller's bytes to the replica's bytes.

Both transports (`RouterService.Infer` and Open Inference's ModelInfer) call `InferenceCore.infer`.
"""

import asyncio
import os
from dataclasses import dataclass

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.envelope_pb2 import (
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_NOT_FOUND,
    OUTCOME_OK,
    OUTCOME_UNAVAILABLE,
    BodyClaim,
    ReplyEnvelope,
    RequestEnvelope,
)
from services.router.body_arena import Block, BodyArena
from services.router.counters import RouterCounters
from services.router.directory import DeploymentDirectory
from services.router.idempotency import KeptReplies, keyed_request_id
from services.router.pending import PendingCall, PendingCalls
from services.router.queue import RequestQueue
from services.runtime import telemetry
from services.runtime import trace_words as words
from services.runtime.clock import Clock
from services.wire import names, request_check, subjects
from services.wire.nats_link import NatsLink
from services.wire.outcomes import LABELS, STATUS, OutcomeError

REPLY_MARGIN_S = 0.05
"""How long before the caller's deadline the router answers, so that the reason still arrives."""

DEFAULT_REQUEST_TIMEOUT_S = 60.0
MAX_DEADLINE_S = 24 * 3600.0


@dataclass(slots=True)
class Caller:
    """What a transport knows of a call.

    Attributes:
        remaining_s: time left, or None without a deadline.
        traceparent: W3C context the caller sent, or empty.
        tracestate: vendor part of it.
        request_id: set as soon as it is known, for trailers and logs.
        trace_id: likewise.
        deployment: likewise, if there is one of the name.
    """

    remaining_s: float | None
    traceparent: str = ""
    tracestate: str = ""
    request_id: str = ""
    trace_id: str = ""
    deployment: str = ""


class InferenceCore:
    """Runs inferences through the queue."""

    def __init__(
        self,
        link: NatsLink,
        directory: DeploymentDirectory,
        pending: PendingCalls,
        queue: RequestQueue,
        arena: BodyArena,
        kept: KeptReplies,
        counters: RouterCounters,
        clock: Clock,
        router_id: str,
    ) -> None:
        """Puts the parts together."""
        self._link = link
        self._directory = directory
        self._pending = pending
        self._queue = queue
        self._arena = arena
        self._kept = kept
        self._counters = counters
        self._clock = clock
        self._router_id = router_id

    async def infer(self, body: bytes, caller: Caller) -> bytes:
        """Runs one inference.

        Args:
            body: a serialised InferRequest.
            caller: the call; its ids are filled in.

        Returns:
            A serialised InferResponse.

        Raises:
            OutcomeError: with every outcome other than OK.
        """
        caller.request_id = os.urandom(16).hex()
        caller.trace_id = telemetry.trace_id(caller.traceparent) or caller.request_id
        deployment_id = ""
        outcome = OUTCOME_OK
        try:
            checked = request_check.check(body)
            deployment = self._directory.get(checked.deployment)
            if deployment is None:
                deployment = await self._find(checked.deployment)
            deployment_id = caller.deployment = checked.deployment
            call = self._admit(body, checked, deployment, caller)
            # The envelope or the arena has it now; waiting must not hold it a second time.
            del body
            reply = await self._answer(call, caller)
            if reply.outcome != OUTCOME_OK:
                raise OutcomeError(reply.outcome, reply.message, by_replica=True)
            return reply.body
        except OutcomeError as error:
            outcome = error.outcome
            raise
        finally:
            self._counters.calls[deployment_id, LABELS[outcome]] += 1

    async def _find(self, deployment_id: str) -> Deployment:
        deployment = await self._directory.find(deployment_id)
        if deployment is not None:
            return deployment
        if not self._directory.known:
            raise OutcomeError(
                OUTCOME_UNAVAILABLE,
                "the router does not know the deployments yet: it has not reached NATS",
                retry_after_s=1.0,
            )
        known = ", ".join(self._directory.ids()[:5]) or "none"
        raise OutcomeError(
            OUTCOME_NOT_FOUND,
            f"Request for unknown model: {names.quoted(deployment_id)} is not found; there is no "
            f"deployment of that name (deployed: {known})",
        )

    def _admit(
        self,
        body: bytes,
        checked: request_check.CheckedRequest,
        deployment: Deployment,
        caller: Caller,
    ) -> PendingCall:
        limit_s = deployment.request_timeout.ToMilliseconds() / 1000 or DEFAULT_REQUEST_TIMEOUT_S
        remaining_s = limit_s if caller.remaining_s is None else caller.remaining_s
        remaining_s = min(remaining_s - min(REPLY_MARGIN_S, 0.1 * remaining_s), MAX_DEADLINE_S)
        if remaining_s <= 0:
            raise OutcomeError(
                OUTCOME_DEADLINE_EXCEEDED, "the deadline had passed when the request arrived"
            )
        self._pending.admit(checked.deployment, len(body), deployment.max_queued_requests or 1000)
        now_s = self._clock.monotonic_s()
        keyed = bool(checked.idempotency_key)
        if keyed:
            caller.request_id = keyed_request_id(checked.idempotency_key, body)
        envelope = RequestEnvelope(
            request_id=caller.request_id,
            reply_subject=(
                subjects.kept_reply(caller.request_id)
                if keyed
                else subjects.reply(self._router_id, caller.request_id)
            ),
            keep_reply=keyed,
            traceparent=caller.traceparent,
            tracestate=caller.tracestate,
        )
        block = None if checked.parts is None or keyed else self._arena.store(body, now_s)
        if block is None or checked.parts is None:
            envelope.body = body
        else:
            envelope.claim.CopyFrom(self._claim(block, checked))
        return PendingCall(
            request_id=caller.request_id,
            deployment=checked.deployment,
            envelope=envelope,
            deadline_s=now_s + remaining_s,
            attempt_limit_s=limit_s,
            size=len(body),
            reply=asyncio.get_running_loop().create_future(),
            message_id=caller.request_id,
            block=block,
        )

    def _claim(self, block: Block, checked: request_check.CheckedRequest) -> BodyClaim:
        assert checked.parts is not None
        spans = checked.parts.raw_spans
        return BodyClaim(
            head=checked.parts.head,
            arena=self._arena.name,
            arena_size_bytes=self._arena.size,
            offset_bytes=block.offset,
            length_bytes=block.length,
            raw_offset_bytes=[block.offset + offset for offset, _ in spans],
            raw_length_bytes=[length for _, length in spans],
            fetch_subject=subjects.body(self._router_id),
        )

    async def _answer(self, call: PendingCall, caller: Caller) -> ReplyEnvelope:
        remaining_s = call.deadline_s - self._clock.monotonic_s()
        # Before anything else is awaited, so that nothing makes the caller wait beyond it.
        timer = asyncio.get_running_loop().call_later(max(0.0, remaining_s), self._expire, call)
        try:
            if call.envelope.keep_reply:
                return await self._kept.answer(call, lambda _: self._publish(call, caller))
            return await self._run(call, caller)
        finally:
            timer.cancel()

    async def _run(self, call: PendingCall, caller: Caller) -> ReplyEnvelope:
        self._pending.add(call)
        reply: ReplyEnvelope | None = None
        try:
            self._publish(call, caller)
            reply = await call.reply
            return reply
        finally:
            self._pending.remove(call)
            self._queue.finish(call, reply)
            if reply is None:
                self._queue.abandon(call)

    def _publish(self, call: PendingCall, caller: Caller) -> None:
        if not telemetry.records(caller.traceparent):
            self._queue.publish(call)
            return
        span = telemetry.span(
            "publish request",
            "PRODUCER",
            {"traceparent": caller.traceparent, "tracestate": caller.tracestate},
            attributes={
                words.MESSAGING_SYSTEM: words.NATS,
                words.OPERATION_NAME: "publish",
                words.OPERATION_TYPE: "send",
                words.DESTINATION: subjects.request(call.deployment),
                words.DESTINATION_TEMPLATE: "forebay.request.{deployment}",
                words.MESSAGE_ID: call.message_id,
                words.BODY_SIZE: call.size,
                words.DEPLOYMENT: call.deployment,
                words.REQUEST: call.request_id,
            },
        )
        assert span is not None
        call.envelope.traceparent, call.envelope.tracestate = span.traceparent, span.tracestate
        try:
            self._queue.publish(call)
        except OutcomeError as error:
            span.end(STATUS[error.outcome].name, error.message)
            raise
        span.end()

    def _expire(self, call: PendingCall) -> None:
        call.fail(OutcomeError(OUTCOME_DEADLINE_EXCEEDED, self._why_late(call)))

    def _why_late(self, call: PendingCall) -> str:
        deployment = self._directory.get(call.deployment)
        if deployment is None:
            return f"{call.deployment} was deleted while the request waited"
        status = self._directory.status(call.deployment)
        if not self._link.connected:
            return "no reply in time: the queue (NATS) was away"
        if status.ready_replica_count == 0:
            return (
                f"no replica of {call.deployment} became ready in time: "
                f"0 of {status.target_replica_count} are ready"
                + (f"; {status.message}" if status.message else "")
            )
        return (
            f"no reply from {call.deployment} in time, with {status.ready_replica_count} of "
            f"{status.target_replica_count} replicas ready: they are busy or the model is slow"
        )
