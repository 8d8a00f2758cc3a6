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

_NOT_STORED = 10077
_NO_ROOM = frozenset({10023, 10028, 10047})
"""JetStream's error codes for a message that it did not take. The first is for every limit of the
stream, which only the description tells apart; the others are for memory and storage."""


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
                    await self._keep(subject, reply, envelope.request_id)
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

    async def _keep(self, subject: str, reply: bytes, request_id: str) -> None:
        """Stores the reply to an idempotent request.

        Publishing it has also sent it to who waits, whether the stream takes it or not.
        """
        try:
            await self._link.jetstream.publish(subject, reply, timeout=5)
        except nats.js.errors.APIError as error:
            if _kept_already(error):
                return
            if error.err_code != _NOT_STORED and error.err_code not in _NO_ROOM:
                raise
            # Its caller has it; only a repeat that comes later runs anew.
            log.warning("answer.not_kept", request_id=request_id, error=error.description)


def _kept_already(error: nats.js.errors.APIError) -> bool:
    """Whether the stream refused a reply because it has one to the same request."""
    return error.err_code == _NOT_STORED and "per subject" in (error.description or "")
