"""Pure: what one replica counts since its agent started."""

from collections import defaultdict

from forebay.v1.envelope_pb2 import Outcome
from services.node_agent.histogram import DurationHistogram
from services.wire.outcomes import LABELS


class Tallies:
    """Attempts by outcome, and where the time went."""

    def __init__(self) -> None:
        self.attempts: dict[str, int] = defaultdict(int)
        self.queue_wait = DurationHistogram()
        self.service_time = DurationHistogram()

    def count(
        self, outcome: Outcome, queue_wait_s: float, trace_id: str = "", wall_s: float = 0.0
    ) -> None:
        """Counts an ended attempt.

        Args:
            outcome: how it ended.
            queue_wait_s: time from stored to delivered, in seconds.
            trace_id: of a trace that is kept and shows it; empty if there is none.
            wall_s: now, in seconds since the epoch; of no account without a trace.
        """
        self.attempts[LABELS[outcome]] += 1
        self.queue_wait.observe(queue_wait_s, trace_id, wall_s)

    def count_task(self, outcome: Outcome) -> None:
        """Counts an ended attempt at a task, whose wait is no measure of what callers see."""
        self.attempts[LABELS[outcome]] += 1

    def served(self, service_time_s: float, trace_id: str = "", wall_s: float = 0.0) -> None:
        """Counts the time Triton took for an answer.

        Args:
            service_time_s: seconds.
            trace_id: of a trace that is kept and shows it; empty if there is none.
            wall_s: now, in seconds since the epoch; of no account without a trace.
        """
        self.service_time.observe(service_time_s, trace_id, wall_s)
