"""How a simulated autoscaler ticks. Pure."""

from dataclasses import dataclass

TOLERANCE_S = 1e-6
"""By less than this sums of seconds miss their exact value."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How an autoscaler ticks.

    Attributes:
        tick_s: time between two looks.
        lag_s: age of what it sees of queues.
        wake_s: from a request that nobody can serve to the decision that somebody shall.
        node_grace_s: how long a node may be absent before its replicas move.
        every_tick: whether it looks at everything at every tick, needed or not.
        begun_s: what the wall clock says when the run begins, in seconds since the epoch; windows
            of scaling policies go by it.
    """

    tick_s: float = 1.0
    lag_s: float = 1.0
    node_grace_s: float = 10.0
    wake_s: float = 0.02
    every_tick: bool = False
    begun_s: float = 0.0

    def wall_s(self, now_s: float) -> float:
        """What the wall clock says at an instant of the run."""
        # Sums of seconds miss their exact value; windows change at whole ones.
        return self.begun_s + now_s + TOLERANCE_S
