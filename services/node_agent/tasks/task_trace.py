"""The spans of one attempt at a task.

An attempt is a trace of its own that is linked to the one that submitted the task and to the
attempt before: hours may lie between them, and one submitter may have a million tasks.
"""

from collections.abc import Coroutine
from typing import Any

from forebay.v1.envelope_pb2 import OUTCOME_CANCELLED, Outcome
from services.node_agent.tasks.ongoing_task import OngoingTask
from services.node_agent.traces import trace_names as names
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.traces.tracing import end_attempt, end_call
from services.node_agent.triton.triton_client import Metadata
from services.runtime import telemetry
from services.runtime import trace_words as words
from services.wire.instants import timestamp
from services.wire.tasks import attempt_context, subjects


class TaskTrace:
    """Spans of one attempt; made only while tracing is on, and for what is sampled."""

    __slots__ = ("_attempt", "_call", "_outcome", "_replica", "_why")

    def __init__(self, attempt: telemetry.ActiveSpan, replica: ReplicaTrace) -> None:
        """Use `start`."""
        self._attempt = attempt
        self._replica = replica
        self._call: telemetry.ActiveSpan | None = None
        self._outcome: Outcome = OUTCOME_CANCELLED
        self._why = ""

    @classmethod
    def start(cls, task: OngoingTask, replica: ReplicaTrace) -> "TaskTrace | NoTaskTrace":
        """Begins an attempt."""
        if not telemetry.enabled():
            return NO_TASK_TRACE
        envelope, options = task.envelope, task.envelope.task
        now_s = task.started_server_s
        # Before that it could not have been delivered.
        due = (options.create_time, task.known.next_attempt_time)
        waited_s = max(0.0, now_s - max(time.ToNanoseconds() for time in due) / 1e9)
        attributes: dict[str, telemetry.Value] = {
            **replica.attributes,
            words.MESSAGING_SYSTEM: words.NATS,
            words.OPERATION_NAME: "process",
            words.OPERATION_TYPE: "process",
            words.DESTINATION: subjects.lane(envelope.deployment, options.priority),
            words.DESTINATION_TEMPLATE: "forebay.task.{deployment}.{priority}.>",
            words.MESSAGE_ID: envelope.task_id,
            words.BODY_SIZE: len(envelope.body),
            words.TASK: envelope.task_id,
            words.ATTEMPT: task.attempt,
            words.QUEUE_WAIT: round(waited_s, 6),
        }
        if options.batch:
            attributes[words.BATCH] = options.batch
        links = _links(task)
        cold = replica.waited((task.started_s or task.delivered_s) - waited_s)
        if cold is not None:
            attributes |= cold.attributes
            links += cold.links
        attempt = telemetry.span(
            names.TASK_ATTEMPT,
            "CONSUMER",
            {},
            attributes=attributes,
            links=links,
            ids=attempt_context.ids(
                envelope.deployment, envelope.task_id, timestamp(now_s).ToNanoseconds()
            ),
        )
        return cls(attempt, replica) if attempt is not None and attempt.sampled else NO_TASK_TRACE

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

    def stopped(self, outcome: Outcome, why: str) -> None:
        """Triton is done with the task, or was told to be, or has died.

        Args:
            outcome: of the attempt.
            why: what went wrong, for a person.
        """
        self._outcome, self._why = outcome, why
        if self._call is not None:
            end_call(self._call, outcome, why)
        if outcome == OUTCOME_CANCELLED:
            # Nothing comes after: it is given back.
            self._end()

    async def settled(self, ending: Coroutine[Any, Any, None]) -> None:
        """Ends the attempt once what came of it is stored, with its result if it has one."""
        span = telemetry.span(
            names.TASK_SETTLED,
            "INTERNAL",
            self._attempt.carrier,
            attributes={words.MESSAGING_SYSTEM: words.NATS, words.OPERATION_TYPE: "settle"},
        )
        try:
            await ending
        finally:
            if span is not None:
                span.end()
            self._end()

    def _end(self) -> None:
        end_attempt(self._attempt, self._outcome, self._why)


class NoTaskTrace:
    """An attempt of which nothing is recorded."""

    __slots__ = ()
    trace_id = ""
    wall_s = 0.0

    def call_triton(self) -> None:
        """Triton gets no context: it would trace the call."""

    def stopped(self, outcome: Outcome, why: str) -> None:
        """Triton is done with the task."""

    def settled(self, ending: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """What settles the task, unchanged."""
        return ending


NO_TASK_TRACE = NoTaskTrace()


def _links(task: OngoingTask) -> list[telemetry.LinkTo]:
    """To what submitted a task, and to the attempt before this one."""
    envelope, attempts = task.envelope, task.known.attempts
    links = []
    if envelope.traceparent:
        submitted = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
        links.append(telemetry.LinkTo(submitted, {words.LINK: "submission"}))
    if attempts:
        before = attempt_context.traceparent(envelope.deployment, envelope.task_id, attempts[-1])
        links.append(telemetry.LinkTo({"traceparent": before}, {words.LINK: "attempt before"}))
    return links
