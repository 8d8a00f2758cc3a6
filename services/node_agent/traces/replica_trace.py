"""What the spans of one replica say of it, the span of its start, and what waited for that.

Requests and tasks that were stored before the replica was READY link to its start: they are those
who waited for the cold start.
"""

from dataclasses import dataclass

from forebay.v1.autoscaler_pb2 import Assignment
from services.node_agent import replica_states
from services.node_agent.traces import trace_names as names
from services.node_agent.traces.recent_calls import RecentCalls
from services.runtime import telemetry
from services.runtime import trace_words as words
from services.runtime.clock import Clock

CALLS = RecentCalls()
"""Calls of this agent's Tritons, by which their own spans are told from others."""


@dataclass(frozen=True, slots=True)
class Started:
    """A start that is over.

    Attributes:
        ready_s: monotonic time at which the replica was READY.
        links: to its span, if that is recorded.
        attributes: what a span says that waited for it.
    """

    ready_s: float
    links: tuple[telemetry.LinkTo, ...]
    attributes: dict[str, telemetry.Value]


class ReplicaTrace:
    """Spans of a replica's start, and the beginnings of all others; cheap while tracing is off.

    Attributes:
        replica_id: the replica.
        deployment: id of its deployment.
        address: of its Triton, as host:port; empty before there is one.
        attributes: what all its spans say.
    """

    def __init__(self, assignment: Assignment, deployment: str, node: str, clock: Clock) -> None:
        """Nothing has begun.

        Args:
            assignment: of the replica.
            deployment: id of its deployment.
            node: it is on.
            clock: this machine's.
        """
        self.replica_id = assignment.replica_id
        self.deployment = deployment
        self.address = ""
        self.attributes: dict[str, telemetry.Value] = {
            words.DEPLOYMENT: deployment,
            words.REPLICA: assignment.replica_id,
            words.NODE: node,
        }
        self._assignment = assignment
        self._clock = clock
        self._started: Started | None = None
        self._start_count = 0
        self._start: telemetry.ActiveSpan | None = None
        self._step: telemetry.ActiveSpan | None = None
        self._step_name = ""

    def say(self, message: str) -> None:
        """The replica says what it does: its start begins with fetching the model.

        A Triton that was adopted has no start.
        """
        if not telemetry.enabled():
            return
        step = names.start_step(message)
        if step == names.MODEL_FETCH:
            self.failed("it was begun anew")
            self._begin()
        if self._start is None or step is None or step == self._step_name:
            return
        self._end_step()
        self._step_name = step
        self._step = telemetry.span(step, "INTERNAL", self._start.carrier)

    def become(self, state: replica_states.State, message: str) -> None:
        """The replica has a state now: its start is over if it is READY, FAILED or on its way out.

        Args:
            state: what it is.
            message: why, if it failed.
        """
        if self._start is None:
            return
        if state == replica_states.READY:
            self._ready(self._start)
        elif state in {replica_states.FAILED, replica_states.DRAINING}:
            self.failed(message or "it was told to stop before it was READY")

    def failed(self, reason: str) -> None:
        """The start that is under way, if one is, has failed; the replica may start again."""
        self._end_step("start_failed", reason)
        if self._start is not None:
            self._start.end("start_failed", reason)
            self._start = None

    def waited(self, stored_s: float) -> Started | None:
        """The cold start that something waited for; None if it waited for none.

        Args:
            stored_s: monotonic time at which it could have been delivered.
        """
        started = self._started
        return started if started is not None and stored_s < started.ready_s else None

    def call_triton(self, parent: telemetry.ActiveSpan) -> telemetry.ActiveSpan:
        """Begins a call of its Triton, in an attempt."""
        host, _, port = self.address.rpartition(":")
        span = telemetry.span(
            names.TRITON_CALL,
            "CLIENT",
            parent.carrier,
            attributes={
                words.RPC_SYSTEM: words.GRPC,
                words.RPC_METHOD: names.MODEL_INFER,
                words.SERVER_ADDRESS: host,
                words.SERVER_PORT: int(port),
                **self.attributes,
            },
        )
        assert span is not None, "an attempt is recorded"
        CALLS.note(span.trace_id, self.replica_id, self.deployment)
        return span

    def _begin(self) -> None:
        assignment = self._assignment
        decided = {"traceparent": assignment.traceparent} if assignment.traceparent else {}
        self._start_count += 1
        # A replica that starts again and again is not one ever longer trace of the decision.
        again = self._start_count > 1
        self._start = telemetry.span(
            names.COLD_START,
            "INTERNAL",
            {} if again else decided,
            attributes={
                **self.attributes,
                **self._decision(),
                words.GENERATION: assignment.generation,
                words.START_COUNT: self._start_count,
            },
            links=(telemetry.LinkTo(decided),) if again and decided else (),
        )

    def _ready(self, span: telemetry.ActiveSpan) -> None:
        self._end_step()
        span.end()
        self._start = None
        self._started = Started(
            self._clock.monotonic_s(),
            (telemetry.LinkTo(span.carrier, {words.LINK: "cold start"}),) if span.sampled else (),
            {words.COLD_START: True, **self._decision()},
        )

    def _decision(self) -> dict[str, telemetry.Value]:
        decision = self._assignment.scale_decision
        return {words.SCALE_DECISION: decision} if decision else {}

    def _end_step(self, error: str | None = None, reason: str = "") -> None:
        if self._step is not None:
            self._step.end(error, reason)
        self._step, self._step_name = None, ""
