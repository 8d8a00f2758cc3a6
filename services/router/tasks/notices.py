"""Tells whom it concerns that tasks wait, but not for each task."""

import asyncio

from services.wire.tasks.ledger import TaskLedger

LEAST_PAUSE_S = 0.01
"""Two thousand tasks a second need a hundred words, not two thousand."""


class WaitingNotices:
    """At most one word for each lane in LEAST_PAUSE_S, and one after its last task."""

    def __init__(self, ledger: TaskLedger) -> None:
        """Nothing was said yet.

        Args:
            ledger: says it to idle replicas, to metrics, and to the autoscaler, which brings a
                replica to a deployment that has none.
        """
        self._ledger = ledger
        # Bounded by the lanes told of in the last LEAST_PAUSE_S. True: to be told again then.
        self._resting: dict[tuple[str, int], bool] = {}

    def stored(self, deployment: str, priority: int) -> None:
        """Takes note that a task was stored."""
        lane = (deployment, priority)
        if lane in self._resting:
            self._resting[lane] = True
        else:
            self._tell(lane)

    def _tell(self, lane: tuple[str, int]) -> None:
        self._resting[lane] = False
        asyncio.get_running_loop().call_later(LEAST_PAUSE_S, self._rested, lane)
        self._ledger.tell_waiting(*lane)

    def _rested(self, lane: tuple[str, int]) -> None:
        if self._resting.pop(lane):
            self._tell(lane)
