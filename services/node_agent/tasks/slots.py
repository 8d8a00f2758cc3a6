"""Pure: how a replica's slots are shared between requests and tasks.

Requests come first: tasks are taken only while an open pull of requests stays unfilled, which says
that none waits, and one slot of several is kept free of tasks. While there are tasks, only a few
requests are asked for at a time, so that at most the slots and these few are inside. What was asked
for before the first task came runs out within EXPIRES_S of credit.py, and may come on top so long.

Inside Triton nothing overtakes: a request waits for the tasks that came before it. So while
requests keep coming, only so many tasks are inside that one waits for about DELAY_S, by how long
tasks took lately; with several instances, long tasks leave one of them free.

A task that was in a replica when that died, beside others, runs alone, so that it shows who did it:
it waits for the other tasks, then no request is asked for any more until it has run. Between two
such tasks it is the turn of a few requests.
"""

from collections.abc import Callable

from services.node_agent.credit import EXPIRES_S, Credit
from services.node_agent.tasks.line import Line

UNFILLED_S = 0.005
"""A pull of requests that is unfilled for so long has found none waiting."""

TASKS_AROUND_S = 5.0
"""So long after the last task, pulls are short; for a tenth of it they are small, too."""

SHORT_EXPIRES_S = 0.5
"""How long a pull of requests stays open while there are tasks: one that is to run alone waits for
it to run out."""

TURN_EXPIRES_S = 0.05
"""The same between two tasks that run alone."""

REQUESTS_AROUND_S = 10.0
"""So long after the last request, tasks leave room for the next."""

DELAY_S = 0.05
"""For so long a request may wait inside Triton for tasks."""

_NEWEST_RATIO = 0.2
"""What the newest task counts for in how long tasks take."""


def _nothing() -> None:
    """Stands where nobody listens."""


class Slots:
    """The slots of one replica.

    Attributes:
        credit: requests asked for.
        line: what is inside Triton.
        requests: requests inside.
        tasks: tasks delivered that Triton has not answered.
        running: of these, those Triton has.
        recycled: Triton is ended on purpose; what it held did nothing wrong.
        lost_together: how many were inside when Triton died; 0 while it lives.
        pull_requests: called when there may be room for requests.
        pull_tasks: called when there may be room for tasks.
    """

    def __init__(self, slots: int, instances: int = 1) -> None:
        """All free.

        Args:
            slots: requests and tasks the replica works on at once, at least 1.
            instances: of the model; so many are at work at once.
        """
        self.credit = Credit(slots)
        self.line = Line(instances)
        self.requests = 0
        self.tasks = 0
        self.running = 0
        self.recycled = False
        self.lost_together = 0
        self.pull_requests: Callable[[], None] = _nothing
        self.pull_tasks: Callable[[], None] = _nothing
        self._slots = slots
        self._kept = 1 if slots > 1 else 0
        self._few = max(1, slots // 8)
        self._instances = instances
        self._last_request_s = float("-inf")
        self._task_s: float | None = None
        self._open_since_s = 0.0
        self._last_task_s = float("-inf")
        self._waiting_alone = 0
        self._alone_runs = False
        self._requests_turn = False

    @property
    def kept_for_requests(self) -> int:
        """Slots that tasks leave free."""
        return self._kept

    @property
    def lost(self) -> bool:
        """Whether Triton is gone, or about to be: nothing may start in it."""
        return self.recycled or self.lost_together > 0

    @property
    def asked_beside_tasks(self) -> int:
        """Requests asked for at a time while there are tasks."""
        return self._few

    def requests_wanted(self, now_s: float) -> int:
        """How many requests to ask for now."""
        if self._waiting_alone and (not self.running or self._alone_runs):
            few = min(self._few, self._slots - self.requests) - self.credit.on_the_way
            return max(0, few) if self._requests_turn else 0
        if not self.tasks and now_s - self._last_task_s > TASKS_AROUND_S / 10:
            return self.credit.wanted(self.requests)
        allowed = min(
            self._few,
            self._slots - self.requests,
            self._slots + self._few - self.requests - self.tasks,
        )
        return max(0, allowed - self.credit.on_the_way)

    def open_requests(self, count: int, now_s: float) -> tuple[str, float]:
        """Notes a pull of requests; returns its name and for how long it is to stay open."""
        if not self.credit.on_the_way:
            self._open_since_s = now_s
        if self._requests_turn:
            self._requests_turn = False
            return self.credit.open(count, now_s, TURN_EXPIRES_S), TURN_EXPIRES_S
        around = self.tasks or now_s - self._last_task_s < TASKS_AROUND_S
        expires_s = SHORT_EXPIRES_S if around else EXPIRES_S
        return self.credit.open(count, now_s, expires_s), expires_s

    def room_for_tasks(self, now_s: float) -> int:
        """How many tasks may come, whether or not requests wait."""
        if self._waiting_alone or self.lost:
            return 0
        room = self._slots - self._kept - self.requests - self.tasks
        if now_s - self._last_request_s < REQUESTS_AROUND_S:
            room = min(room, self._tasks_beside_requests() - self.tasks)
        return max(0, room)

    def _tasks_beside_requests(self) -> int:
        """How many tasks may be inside while requests keep coming."""
        least = max(1, self._instances - 1)
        if self._task_s is None:
            return least
        # Each instance works through its share of them.
        short = DELAY_S * self._instances / max(self._task_s, 1e-6)
        return max(least, int(min(short, self._slots)))

    def no_request_waits(self, now_s: float) -> bool:
        """Whether requests were asked for and have not come."""
        return self.credit.on_the_way > 0 and now_s - self._open_since_s >= UNFILLED_S

    def request_came(self, key: int, now_s: float) -> None:
        """A request was delivered; `key` tells it from all others inside."""
        self.requests += 1
        self._last_request_s = now_s
        self.line.enter(key, now_s)

    def request_left(self, key: int, now_s: float, answered: bool = True) -> None:
        """A request was answered, or given back; requests may have its slot before tasks do."""
        self.requests -= 1
        self.line.leave(key, now_s, answered)
        self.pull_requests()
        self.pull_tasks()

    def task_came(self, now_s: float) -> None:
        """A task was delivered."""
        self.tasks += 1
        self._last_task_s = now_s

    def task_left(self, now_s: float) -> None:
        """A task was answered or given back; requests may have its slot before tasks do."""
        self.tasks -= 1
        self._last_task_s = now_s
        self.pull_requests()
        self.pull_tasks()

    def tasks_expected(self, now_s: float) -> None:
        """Tasks that run alone are likely to come: Triton has just died under some."""
        self._last_task_s = now_s

    def wait_alone(self) -> None:
        """One task more is here that runs alone."""
        self._waiting_alone += 1

    def alone_over(self) -> None:
        """One task less is here that runs alone."""
        self._waiting_alone -= 1

    def may_start(self, alone: bool) -> bool:
        """Whether a task may be given to Triton now.

        Args:
            alone: it must have the replica to itself.
        """
        if self._alone_runs:
            return False
        if not alone:
            return True
        requests = self.requests or self.credit.on_the_way or self._requests_turn
        return not (self.running or requests)

    def started(self, key: int, now_s: float, alone: bool) -> None:
        """A task was given to Triton; `key` tells it from all others inside."""
        self.running += 1
        self.line.enter(key, now_s)
        self._alone_runs = alone

    def stopped(self, key: int, now_s: float, alone: bool) -> None:
        """Triton has a task no more."""
        self.running -= 1
        took_s = self.line.leave(key, now_s)
        before_s = took_s if self._task_s is None else self._task_s
        self._task_s = before_s + _NEWEST_RATIO * (took_s - before_s)
        if alone:
            self._alone_runs = False
            self._requests_turn = self._waiting_alone > 1

    def note_loss(self) -> None:
        """Triton died; the first word of it says how many were inside."""
        if not self.lost_together:
            self.lost_together = max(1, len(self.line))
