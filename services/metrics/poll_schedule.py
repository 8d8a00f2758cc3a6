"""Whose queue to ask for next. Pure: time is an argument.

Asking 10,000 consumers every second would cost nats-server four tenths of a core (40 µs each on
2.15.1) and this process 0.15 (15 µs each). So a queue with something in it is asked every
BUSY_INTERVAL_S, one whose replicas have just worked every WORKED_INTERVAL_S, and the others in turn
every IDLE_INTERVAL_S: which queues are empty, one answer about the whole stream says each second.
"""

import heapq

BUSY_INTERVAL_S = 1.0
WORKED_INTERVAL_S = 5.0
IDLE_INTERVAL_S = 20.0
WORKED_FOR_S = 10.0
"""How long after its last change something is taken to work."""

ANSWER_TIMEOUT_S = 2.0
"""A question without an answer is asked again after this."""


class PollSchedule:
    """When each deployment's queue, or whatever else has a name, is to be asked for."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}
        # What is not in `_due_s` with the same time has been moved and is skipped.
        self._heap: list[tuple[float, str]] = []

    def keep(self, now_s: float, deployments: set[str]) -> None:
        """Takes up new deployments, due now, and drops all that are not among the given."""
        for gone in self._due_s.keys() - deployments:
            del self._due_s[gone]
        for new in deployments - self._due_s.keys():
            self._set(new, now_s)
        if len(self._heap) > 4 * len(self._due_s) + 1024:
            self._heap = [(due_s, name) for name, due_s in self._due_s.items()]
            heapq.heapify(self._heap)

    def add(self, now_s: float, deployment: str) -> None:
        """Takes up one, due now; nothing happens if it is known."""
        if deployment not in self._due_s:
            self._set(deployment, now_s)

    def by(self, due_s: float, deployment: str) -> None:
        """Has a deployment asked for at a time at the latest; nothing happens if it is unknown."""
        if self._due_s.get(deployment, due_s) > due_s:
            self._set(deployment, due_s)

    def take(self, now_s: float, at_most: int) -> list[str]:
        """Those due, longest due first; each is due again if no answer comes."""
        taken: list[str] = []
        while self._heap and len(taken) < at_most and self._heap[0][0] <= now_s:
            due_s, deployment = heapq.heappop(self._heap)
            if self._due_s.get(deployment) == due_s:
                taken.append(deployment)
                self._set(deployment, now_s + ANSWER_TIMEOUT_S)
        return taken

    def answered(self, now_s: float, deployment: str, interval_s: float) -> None:
        """Takes note of an answer; the next question is due in `interval_s`."""
        if deployment in self._due_s:
            self._set(deployment, now_s + interval_s)

    def _set(self, deployment: str, due_s: float) -> None:
        self._due_s[deployment] = due_s
        heapq.heappush(self._heap, (due_s, deployment))
