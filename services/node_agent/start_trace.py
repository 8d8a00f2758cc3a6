"""The span of a replica's start, from its assignment to READY, and what waited for it.

Requests and tasks that were stored before the replica was READY link to it: they are those who
waited for the cold start.
"""

from dataclasses import dataclass

from forebay.v1.autoscaler_pb2 import Assignment
from services.node_agent import trace_names as names
from services.runtime import telemetry
from services.runtime import trace_words as words


@dataclass(frozen=True, slots=True)
class Started:
    """A start that is over.

    Attributes:
        ready_s: monotonic time at which the replica was READY.
        link: to its span.
        scale_decision: id of the decision it followed from; empty if that is not known.
    """

    ready_s: float
    link: telemetry.LinkTo
    scale_decision: str

    @property
    def attributes(self) -> dict[str, telemetry.Value]:
        """What a span says that waited for it."""
        found: dict[str, telemetry.Value] = {words.COLD_START: True}
        if self.scale_decision:
            found[words.SCALE_DECISION] = self.scale_decision
        return found


class StartTrace:
    """Spans of one start; does nothing while tracing is off."""

    def __init__(self, assignment: Assignment, deployment: str, node: str, number: int) -> None:
        """Begins.

        Args:
            assignment: of the replica.
            deployment: id of its deployment.
            node: it is on.
            number: which start of this replica, from 1.
        """
        self._decision = assignment.scale_decision
        self._span: telemetry.ActiveSpan | None = None
        self._step: telemetry.ActiveSpan | None = None
        self._step_name = ""
        if not telemetry.enabled():
            return
        decided = {"traceparent": assignment.traceparent} if assignment.traceparent else {}
        attributes: dict[str, telemetry.Value] = {
            words.DEPLOYMENT: deployment,
            words.REPLICA: assignment.replica_id,
            words.NODE: node,
            words.GENERATION: assignment.generation,
            words.START_COUNT: number,
        }
        if self._decision:
            attributes[words.SCALE_DECISION] = self._decision
        # A replica that starts again and again is not one ever longer trace of the decision.
        again = number > 1
        self._span = telemetry.span(
            names.COLD_START,
            "INTERNAL",
            {} if again else decided,
            attributes=attributes,
            links=(telemetry.LinkTo(decided),) if again and decided else (),
        )

    def say(self, message: str) -> None:
        """Begins the next step, if what the replica says is the beginning of one."""
        if self._span is None:
            return
        step = names.start_step(message)
        if step is None or step == self._step_name:
            return
        self._end_step()
        self._step_name = step
        self._step = telemetry.span(step, "INTERNAL", self._span.carrier)

    def ready(self, ready_s: float) -> Started | None:
        """Ends it: the replica is READY. None while tracing is off, or where it is not sampled.

        Args:
            ready_s: monotonic time.
        """
        span, self._span = self._span, None
        self._end_step()
        if span is None:
            return None
        span.end()
        if not span.sampled:
            return None
        return Started(ready_s, telemetry.LinkTo(span.carrier), self._decision)

    def failed(self, reason: str) -> None:
        """Ends it: the replica did not start."""
        self._end_step("start_failed", reason)
        if self._span is not None:
            self._span.end("start_failed", reason)
            self._span = None

    def discard(self) -> None:
        """There was nothing to start: its Triton ran."""
        self._span = self._step = None

    def _end_step(self, error: str | None = None, reason: str = "") -> None:
        if self._step is not None:
            self._step.end(error, reason)
            self._step = None
