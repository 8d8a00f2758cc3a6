"""Pure: which of a deployment's three lanes to ask for tasks, and when.

One question is open at a time and names one lane, so that a lower one is asked only when those
above it have said that they are empty. A lane that is empty is asked again when somebody says that
a task waits, and now and then in any case: soon after tasks came, seldom later.
"""

PRIORITIES = (1, 2, 3)
"""High, normal, low, as in Task.Priority."""

MIN_POLL_S = 0.02
MAX_POLL_S = 2.0

ANSWER_S = 3.0
"""A question that is not answered for so long was lost."""

MAX_RETURNS = 1000
"""Times that are remembered at which a task given back comes again; the poll finds the others."""


class Lanes:
    """What is known of the lanes.

    Attributes:
        asked: tasks that may still come of the open question; 0 if none is open.
    """

    def __init__(self) -> None:
        """Any lane may have tasks."""
        self.asked = 0
        self._lane: int | None = None
        self._asked_s = 0.0
        self._name = 0
        self._maybe = set(PRIORITIES)
        self._woken = False
        self._polled_s = float("-inf")
        self._active_s = float("-inf")
        self._returns: set[float] = set()

    def wake(self) -> None:
        """Somebody says that a task waits; not of which lane, since not every task is told of."""
        self._maybe.update(PRIORITIES)
        self._woken = True

    def returns(self, at_s: float) -> None:
        """A task that was given back can be had again from then on."""
        if len(self._returns) < MAX_RETURNS:
            self._returns.add(round(at_s + 0.05, 1))

    def tick(self, now_s: float) -> None:
        """Time has passed: forgets a question that was lost, and asks all lanes when it is time."""
        if self._lane is not None and now_s - self._asked_s > ANSWER_S:
            self.lost()
        due = {at_s for at_s in self._returns if at_s <= now_s}
        self._returns -= due
        if due or now_s - self._polled_s >= self._poll_s(now_s):
            self._polled_s = now_s
            self.wake()

    def next_tick_s(self, now_s: float) -> float:
        """Seconds until `tick` has something to do."""
        at_s = min([self._polled_s + self._poll_s(now_s), *self._returns])
        return max(MIN_POLL_S, at_s - now_s)

    def to_ask(self) -> int | None:
        """The lane to ask now; None if one is asked already, or all are empty."""
        return min(self._maybe, default=None) if self._lane is None else None

    def ask(self, lane: int, count: int, now_s: float) -> str:
        """Notes a question for up to `count` tasks of a lane; returns its name."""
        self._name += 1
        self._lane, self.asked, self._asked_s, self._woken = lane, count, now_s, False
        return str(self._name)

    def delivered(self, now_s: float) -> None:
        """A task has come."""
        self._active_s = now_s
        if self.asked:
            self.asked -= 1
        if not self.asked:
            self._lane = None

    def answered(self, name: str) -> None:
        """No more comes of a question: its lane is empty, or is not there."""
        if self._lane is None or name != str(self._name):
            return
        if not self._woken:
            self._maybe.discard(self._lane)
        self._lane, self.asked = None, 0

    def lost(self) -> None:
        """Forgets the open question: the connection was lost."""
        self._lane, self.asked = None, 0
        self.wake()

    def _poll_s(self, now_s: float) -> float:
        return min(MAX_POLL_S, max(MIN_POLL_S, (now_s - self._active_s) / 2))
