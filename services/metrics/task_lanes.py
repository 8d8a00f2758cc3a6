"""What is known of the tasks of each deployment, from what JetStream has said. Pure.

A *lane* is the tasks of one priority of a deployment; it has a consumer from its first task on,
made before the task is stored. So a deployment without a consumer has no tasks, unless it lost one
with tasks in it. Such tasks are *strays*: nobody knows how many they are until they have a consumer
again. A lane whose consumer went away is in doubt until the stream has said that it holds nothing
of that lane, and so is, once, each lane without a consumer when its deployment is first heard of.

A stream without a message clears every doubt: then nobody has a task.

A lane that was empty is *quiet* until somebody says that a task of it waits, which whoever stores
one does. It is asked for seldom, and taken to be empty while the stream answers.
"""

from dataclasses import dataclass

from services.metrics.arrivals import ArrivalWindow, QueueState
from services.metrics.poll_schedule import IDLE_INTERVAL_S
from services.wire.tasks.streams import PRIORITIES

EVERY_PRIORITY = 0
"""Stands for all lanes of a deployment that has no consumer at all."""

QUIET_FOR_S = 3 * IDLE_INTERVAL_S
"""How long a lane is taken to be quiet after its last answer. The word of a task may be missed: of
one whose router died between storing it and saying so."""


@dataclass(frozen=True, slots=True)
class TaskSignals:
    """What is known of the tasks of a deployment.

    Attributes:
        queued: stored and not yet delivered.
        ongoing: delivered and not settled, those that wait for their next attempt included.
        arrivals_per_second: over the window; None is not known.
        age_s: how old all of this is.
    """

    queued: int
    ongoing: int
    arrivals_per_second: float | None
    age_s: float


@dataclass(slots=True)
class Lane:
    """A lane with a consumer.

    Attributes:
        arrivals: of tasks.
        state: as last told; None is not known.
        state_s: when that was asked for.
        asked_s: when it was asked for last.
        heard_s: when somebody last said that a task of it waits.
        moved_s: when it was last told to be other than before.
        made_s: when its consumer was made, if that was heard and it has told nothing yet.
    """

    arrivals: ArrivalWindow
    state: QueueState | None = None
    state_s: float = float("-inf")
    asked_s: float = float("-inf")
    heard_s: float = float("-inf")
    moved_s: float = float("-inf")
    made_s: float | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether it was empty and nobody has spoken of a task since it was asked for."""
        return self.state is not None and self.state.empty and self.heard_s < self.state_s


class TaskLanes:
    """The lanes of all declared deployments."""

    def __init__(self, window_s: float) -> None:
        """Knows nothing.

        Args:
            window_s: over which arrivals are counted.
        """
        self._window_s = window_s
        self._declared: set[str] = set()
        # All consumers there are, also those of others, by what stands before their priority.
        self._consumers: dict[str, set[int]] = {}
        self._lanes: dict[str, dict[int, Lane]] = {}
        self._doubts: dict[str, set[int]] = {}
        # Deployments of which strays were looked for, or need not be.
        self._settled: set[str] = set()
        self._stream_s = float("-inf")
        self._empty_s = float("-inf")
        self.listed = False

    @property
    def stream_is_empty(self) -> bool:
        """Whether the stream held no message when it was last asked."""
        return self._empty_s == self._stream_s > float("-inf")

    @property
    def consumer_count(self) -> int:
        """How many consumers are known to be there."""
        return sum(map(len, self._consumers.values()))

    @property
    def lanes(self) -> list[tuple[str, int]]:
        """Deployment and priority of every lane with a consumer."""
        return [(name, priority) for name, lanes in self._lanes.items() for priority in lanes]

    @property
    def doubts(self) -> list[tuple[str, int]]:
        """Deployment and priority, or EVERY_PRIORITY, of which strays are to be looked for."""
        return [(name, priority) for name, found in self._doubts.items() for priority in found]

    def is_doubtful(self, deployment: str, priority: int) -> bool:
        """Whether strays of a lane, or EVERY_PRIORITY, are to be looked for."""
        return priority in self._doubts.get(deployment, ())

    def lane(self, deployment: str, priority: int) -> Lane | None:
        """A lane; None if it has no consumer or its deployment is not declared."""
        return self._lanes.get(deployment, {}).get(priority)

    def forget(self) -> None:
        """Takes note that anything may have changed."""
        self._stream_s = self._empty_s = float("-inf")
        self.listed = False
        self._settled.clear()
        self._doubts.clear()
        for lanes in self._lanes.values():
            for lane in lanes.values():
                lane.state = None

    def declare(self, deployments: set[str]) -> None:
        """Takes the ids of all deployments there are."""
        for gone in self._declared - deployments:
            self._lanes.pop(gone, None)
            self._doubts.pop(gone, None)
            self._settled.discard(gone)
        for new in deployments - self._declared:
            for priority in self._consumers.get(new, ()):
                self._add_lane(new, priority)
        self._declared = deployments
        if not self.stream_is_empty:
            # It may hold strays by now if it was: the next answer tells.
            self._settle()

    def told_stream(self, asked_s: float, message_count: int) -> None:
        """Takes what the stream says of itself.

        Args:
            asked_s: when it was asked.
            message_count: how many tasks it holds.
        """
        self._stream_s = asked_s
        if not message_count:
            self._empty_s = asked_s
            self._doubts.clear()
        self._settle()

    def told_consumers(self, names: set[str]) -> None:
        """Takes the names of all consumers of the stream."""
        before, self._consumers = self._consumers, {}
        for name in names:
            deployment, priority = parse(name)
            self._consumers.setdefault(deployment, set()).add(priority)
        for deployment, priorities in before.items():
            for priority in priorities - self._consumers.get(deployment, set()):
                self._drop_lane(deployment, priority)
        for deployment in self._consumers.keys() & self._declared:
            for priority in self._consumers[deployment]:
                self._add_lane(deployment, priority)
        self.listed = True
        self._settle()

    def there(self, deployment: str, priority: int) -> Lane | None:
        """Takes note that a lane has a consumer; None if its deployment is not declared."""
        if deployment in self._declared:
            self._consumers.setdefault(deployment, set()).add(priority)
            self._add_lane(deployment, priority)
        return self.lane(deployment, priority)

    def made(self, now_s: float, deployment: str, priority: int) -> Lane | None:
        """Takes note that a consumer was made; None if its deployment is not declared."""
        self._consumers.setdefault(deployment, set()).add(priority)
        doubtful = deployment in self._doubts or deployment not in self._settled
        lane = self.there(deployment, priority)
        if lane is not None and lane.state is None and not doubtful:
            # All that it will ever hold arrives from now on.
            lane.made_s = now_s
        return lane

    def gone(self, deployment: str, priority: int) -> None:
        """Takes note that a consumer is not there."""
        found = self._consumers.get(deployment)
        if found is not None:
            found.discard(priority)
            if not found:
                del self._consumers[deployment]
        self._drop_lane(deployment, priority)

    def told_lane(self, now_s: float, lane: Lane, state: QueueState) -> None:
        """Takes what a lane's consumer says, as of when it was asked."""
        if lane.made_s is not None:
            lane.arrivals.add(lane.made_s, QueueState(state.incarnation, 0, 0, 0, 0, 0))
            lane.made_s = None
        if lane.state != state:
            lane.moved_s = now_s
        lane.state, lane.state_s = state, lane.asked_s
        lane.arrivals.add(now_s, state)

    def told_strays(self, deployment: str, priority: int, any_there: bool) -> None:
        """Takes whether the stream holds tasks of a doubtful lane."""
        doubts = self._doubts.get(deployment)
        if doubts is None or priority not in doubts:
            return
        if any_there and priority != EVERY_PRIORITY:
            return
        doubts.discard(priority)
        if any_there:
            doubts |= set(PRIORITIES) - self._lanes.get(deployment, {}).keys()
        if not doubts:
            del self._doubts[deployment]

    def signals(self, now_s: float, deployment: str, stale_after_s: float) -> TaskSignals | None:
        """What is known of the tasks of a deployment now; None if nothing is.

        Args:
            now_s: monotonic seconds.
            deployment: its id.
            stale_after_s: what is older is not known.
        """
        if deployment in self._doubts:
            return None
        empty_age_s = now_s - self._empty_s
        lanes = self._lanes.get(deployment)
        if lanes is None:
            known = self.listed and deployment in self._settled
            age_s = now_s - self._stream_s if known else empty_age_s
            return TaskSignals(0, 0, 0.0, age_s) if age_s <= stale_after_s else None
        queued = ongoing = 0
        oldest_s = 0.0
        for lane in lanes.values():
            age_s = empty_age_s
            if lane.state is not None and lane.state_s >= self._empty_s:
                age_s = now_s - lane.state_s
                queued += lane.state.pending
                ongoing += lane.state.ongoing
                if lane.is_quiet and age_s <= QUIET_FOR_S:
                    age_s = now_s - self._stream_s
            if age_s > stale_after_s:
                return None
            oldest_s = max(oldest_s, age_s)
        return TaskSignals(queued, ongoing, self._arrivals(now_s, lanes), oldest_s)

    def _arrivals(self, now_s: float, lanes: dict[int, Lane]) -> float | None:
        rates = [lane.arrivals.per_second(now_s) for lane in lanes.values()]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if len(known) == len(rates) else None

    def _add_lane(self, deployment: str, priority: int) -> None:
        if priority not in PRIORITIES:
            return
        lanes = self._lanes.setdefault(deployment, {})
        if priority not in lanes:
            lanes[priority] = Lane(ArrivalWindow(self._window_s))
        doubts = self._doubts.get(deployment)
        if doubts is not None:
            # Not by one question any more: what it finds may be in this lane.
            if EVERY_PRIORITY in doubts:
                doubts.clear()
                doubts |= set(PRIORITIES) - lanes.keys()
            doubts.discard(priority)
            if not doubts:
                del self._doubts[deployment]

    def _drop_lane(self, deployment: str, priority: int) -> None:
        lanes = self._lanes.get(deployment)
        if lanes is not None and lanes.pop(priority, None) is not None:
            self._doubts.setdefault(deployment, set()).add(priority)
            if not lanes:
                del self._lanes[deployment]

    def _settle(self) -> None:
        """Raises doubts about deployments that are new, once it is known which lanes there are."""
        if self._stream_s == float("-inf") or len(self._settled) == len(self._declared):
            return
        if not self.stream_is_empty:
            if not self.listed:
                return
            for deployment in self._declared - self._settled:
                lanes = self._lanes.get(deployment)
                missing = set(PRIORITIES) - lanes.keys() if lanes else {EVERY_PRIORITY}
                if missing:
                    self._doubts.setdefault(deployment, set()).update(missing)
        self._settled |= self._declared


def parse(consumer: str) -> tuple[str, int]:
    """Deployment and priority of a consumer; the name and no priority if it is not one of ours."""
    deployment, _, last = consumer.rpartition("_")
    if last.isdecimal() and int(last) in PRIORITIES:
        return deployment, int(last)
    return consumer, EVERY_PRIORITY
