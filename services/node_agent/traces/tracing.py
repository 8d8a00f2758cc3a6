"""The spans of one attempt: queue wait, the attempt, the call of Triton, the reply."""

from forebay.v1.envelope_pb2 import OUTCOME_CANCELLED, OUTCOME_OK, Outcome
from services.node_agent.attempt import Answer
from services.node_agent.ongoing import Ongoing
from services.node_agent.traces import trace_names as names
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.triton.triton_client import Metadata
from services.runtime import model_messages, telemetry
from services.runtime import trace_words as words
from services.wire import subjects
from services.wire.outcomes import LABELS, STATUS


def end_call(span: telemetry.ActiveSpan, outcome: Outcome, why: str) -> None:
    """Ends a call of Triton.

    Args:
        span: of the call.
        outcome: of the attempt.
        why: what Triton said, if it failed.
    """
    status = STATUS[outcome].name
    span.set({words.RPC_STATUS: status})
    span.end(None if outcome == OUTCOME_OK else status, why)


def end_attempt(span: telemetry.ActiveSpan, outcome: Outcome, why: str) -> None:
    """Ends an attempt; one whose caller has gone is not an error."""
    span.set({words.OUTCOME: LABELS[outcome]})
    failed = outcome not in {OUTCOME_OK, OUTCOME_CANCELLED}
    span.end(STATUS[outcome].name if failed else None, why)


class AttemptTrace:
    """Spans of one attempt; made only while tracing is on, and for what is sampled."""

    __slots__ = ("_attempt", "_call", "_replica", "_reply", "_why")

    def __init__(self, attempt: telemetry.ActiveSpan, replica: ReplicaTrace) -> None:
        """Use `start`."""
        self._attempt = attempt
        self._replica = replica
        self._call: telemetry.ActiveSpan | None = None
        self._reply: telemetry.ActiveSpan | None = None
        self._why = ""

    @classmethod
    def start(cls, request: Ongoing, replica: ReplicaTrace) -> "AttemptTrace | NoTrace":
        """Records the queue wait and begins the attempt."""
        if not telemetry.records(request.envelope.traceparent):
            return NO_TRACE
        now_ns = telemetry.now_ns()
        envelope, wait_s = request.envelope, request.queue_wait_s
        carrier = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
        cold = replica.waited(request.delivered_s - wait_s)
        attributes: dict[str, telemetry.Value] = {
            **replica.attributes,
            words.REQUEST: envelope.request_id,
            words.ATTEMPT: request.delivery,
            words.QUEUE_WAIT: round(wait_s, 6),
        }
        if cold is not None:
            attributes |= cold.attributes
        attempt = telemetry.span(
            names.ATTEMPT,
            "CONSUMER",
            carrier,
            attributes={
                words.MESSAGING_SYSTEM: words.NATS,
                words.OPERATION_NAME: "process",
                words.OPERATION_TYPE: "process",
                words.DESTINATION: subjects.request(replica.deployment),
                words.DESTINATION_TEMPLATE: "forebay.request.{deployment}",
                words.MESSAGE_ID: envelope.request_id,
                words.BODY_SIZE: envelope.claim.length_bytes or len(envelope.body),
                **attributes,
            },
            start_time_ns=now_ns,
        )
        if attempt is None or not attempt.sampled:
            return NO_TRACE
        wait = telemetry.span(
            names.QUEUE_WAIT,
            "INTERNAL",
            carrier,
            attributes=attributes,
            start_time_ns=now_ns - int(wait_s * 1e9),
            links=cold.links if cold is not None else (),
        )
        if wait is not None:
            wait.end(end_time_ns=now_ns)
        return cls(attempt, replica)

    @property
    def trace_id(self) -> str:
        """Its trace: 32 hexadecimal digits."""
        return self._attempt.trace_id

    @property
    def wall_s(self) -> float:
        """Now, in seconds since the epoch."""
        return telemetry.now_ns() / 1e9

    def call_triton(self) -> Metadata:
        """Begins the call; returns the metadata that carries its context to Triton."""
        self._call = self._replica.call_triton(self._attempt)
        return tuple(self._call.carrier.items())

    def failed(self, why: str) -> None:
        """Takes note of what went wrong."""
        self._why = why

    def answered(self, answer: Answer) -> None:
        """Ends the call with what Triton said."""
        self._why = model_messages.for_record(answer.message)
        if self._call is not None:
            end_call(self._call, answer.outcome, self._why)
            self._call = None

    def reply(self, kept: bool) -> None:
        """The answer goes out.

        Args:
            kept: to the stream of kept replies.
        """
        template = "forebay.kept.{request}" if kept else "forebay.reply.{router}.{request}"
        self._reply = telemetry.span(
            names.REPLY,
            "PRODUCER",
            self._attempt.carrier,
            attributes={
                words.MESSAGING_SYSTEM: words.NATS,
                words.OPERATION_NAME: "publish",
                words.OPERATION_TYPE: "send",
                words.DESTINATION_TEMPLATE: template,
            },
        )

    def end(self, outcome: Outcome) -> None:
        """Ends the attempt, and what else has not ended."""
        if self._call is not None:
            end_call(self._call, outcome, self._why)
        if self._reply is not None:
            self._reply.end()
        end_attempt(self._attempt, outcome, self._why)


class NoTrace:
    """An attempt of which nothing is recorded."""

    __slots__ = ()
    trace_id = ""
    wall_s = 0.0

    def call_triton(self) -> None:
        """Triton gets no context: it would trace the call."""

    def failed(self, why: str) -> None:
        """Something went wrong."""

    def answered(self, answer: Answer) -> None:
        """Triton answered."""

    def reply(self, kept: bool) -> None:
        """The answer goes out."""

    def end(self, outcome: Outcome) -> None:
        """The attempt is over."""


NO_TRACE = NoTrace()
