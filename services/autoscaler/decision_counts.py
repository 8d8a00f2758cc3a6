"""How often each deployment was scaled, and when last. Pure: decisions bring their time along."""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from forebay.v1.scaling_pb2 import ScaleDecision


@dataclass(slots=True)
class Counted:
    """Decisions about one deployment since this process began.

    Attributes:
        up: those that raised the target.
        down: those that lowered it.
        hold: those that refused a change, or only advised one.
        last_s: when the last one was made, in seconds since the epoch; None if there is none.
    """

    up: int = 0
    down: int = 0
    hold: int = 0
    last_s: float | None = None


class DecisionCounts:
    """Counts by deployment."""

    def __init__(self) -> None:
        """Nothing was decided."""
        self._counted: dict[str, Counted] = {}

    def count(self, deployment: str, decision: ScaleDecision) -> None:
        """Counts a decision.

        Args:
            deployment: its id.
            decision: the decision.
        """
        counted = self._counted.setdefault(deployment, Counted())
        change = decision.target_after - decision.target_before
        if not decision.applied or not change:
            counted.hold += 1
        elif change > 0:
            counted.up += 1
        else:
            counted.down += 1
        counted.last_s = decision.decide_time.ToNanoseconds() / 1e9

    def keep(self, deployments: Set[str]) -> None:
        """Forgets all but the given deployments."""
        for gone in self._counted.keys() - deployments:
            del self._counted[gone]

    def of(self, deployments: Iterable[str]) -> dict[str, Counted]:
        """The counts of the given deployments, copied."""
        found: dict[str, Counted] = {}
        for deployment in deployments:
            counted = self._counted.get(deployment, Counted())
            found[deployment] = Counted(counted.up, counted.down, counted.hold, counted.last_s)
        return found
