"""Publishes answers to the routers that wait for them, also across a restart of nats-server."""

import asyncio

import nats.errors
import nats.js.errors
import structlog

from forebay.v1.envelope_pb2 import OUTCOME_OK, ReplyEnvelope
from services.node_agent.attempt import Answer
from services.node_agent.ongoing import Ongoing
from services.runtime.clock import Clock
from services.wire import subjects
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

_KEPT_ALREADY = frozenset({10077, 10047})


class AnswerPublisher:
    """Sends the answers of one replica."""

    def __init__(self, link: NatsLink, clock: Clock, node: str, replica_id: str) -> None:
        """Answers in the name of a node and a replica."""
        self._link = link
        self._clock = clock
        self._node = node
        self._replica_id = replica_id

    async def publish(self, request: Ongoing, answer: Answer, ended_s: float) -> None:
        """Sends an answer; while NATS is away, waits for it until the caller is gone."""
        reply = ReplyEnvelope(
            request_id=request.envelope.request_id,
            index=0,
            final=True,
            outcome=answer.outcome,
            message=answer.message,
            node=self._node,
            replica_id=self._replica_id,
            attempt_count=request.delivery,
            queue_wait_us=int(request.queue_wait_s * 1e6),
            service_time_us=int((ended_s - request.delivered_s) * 1e6),
            body=answer.body,
        ).SerializeToString()
        envelope = request.envelope
        keep = envelope.keep_reply and answer.outcome == OUTCOME_OK
        subject = envelope.reply_subject
        if envelope.keep_reply and not keep:
            subject = subjects.failed_reply(envelope.request_id)
        while True:
            try:
                if keep:
                    await self._keep(subject, reply)
                else:
                    self._link.client.send(subject, reply)
            except (nats.errors.Error, nats.js.errors.NoStreamResponseError, TimeoutError) as error:
                if self._clock.monotonic_s() >= request.deadline_s:
                    log.warning(
                        "answer.lost", request_id=request.envelope.request_id, error=str(error)
                    )
                    return
                await asyncio.sleep(0.1)
            else:
                return

    async def _keep(self, subject: str, reply: bytes) -> None:
        """Stores the reply to an idempotent request, which also sends it to who waits."""
        try:
            await self._link.jetstream.publish(subject, reply, timeout=5)
        except nats.js.errors.APIError as error:
            if error.err_code not in _KEPT_ALREADY:
                raise
