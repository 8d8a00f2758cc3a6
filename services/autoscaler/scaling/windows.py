"""Time windows of a scaling policy: which are open at an instant, and until when. Pure.

A window is open if it last began after it last ended. How many replicas that asks for is one of the
signals of a decision, so that a decision made again comes out the same whatever time it is then.
"""

import math
from dataclasses import dataclass

from forebay.v1.scaling_pb2 import ScalingPolicy
from services.wire import cron
from services.wire.cron import Cron

LOOK_BACK_S = 366 * 24 * 3600
"""What began longer ago than this, and never ended since, is over."""


@dataclass(frozen=True, slots=True)
class Window:
    """From each time that `begin` comes until `end` comes next.

    Attributes:
        begin, end: when.
        min_replicas: how many replicas there are at least.
    """

    begin: Cron
    end: Cron
    min_replicas: int

    def is_open(self, wall_s: float) -> bool:
        """Whether it is open at an instant, in seconds since the epoch."""
        since_s = wall_s - LOOK_BACK_S
        begun_s = self.begin.latest(since_s, wall_s)
        if begun_s is None:
            return False
        # Where both come at once it ends.
        return self.end.latest(begun_s - 1, wall_s) is None


class Windows:
    """The windows of one policy, asked again and again: cron is read when a window changes only."""

    __slots__ = ("_count", "_since_s", "_until_s", "_windows")

    def __init__(self, windows: tuple[Window, ...]) -> None:
        """Nothing is known before the first question.

        Args:
            windows: of the policy.
        """
        self._windows = windows
        self._count = 0
        self._since_s = math.inf
        self._until_s = -math.inf

    def min_replicas(self, wall_s: float) -> int:
        """The most that an open window asks for; 0 if none is open.

        Args:
            wall_s: seconds since the epoch; may go back.
        """
        if not self._windows:
            return 0
        if not self._since_s <= wall_s < self._until_s:
            opened = (w.min_replicas for w in self._windows if w.is_open(wall_s))
            self._count = max(opened, default=0)
            ends = (each.next_after(wall_s) for w in self._windows for each in (w.begin, w.end))
            self._since_s = wall_s
            self._until_s = min((end_s for end_s in ends if end_s is not None), default=math.inf)
        return self._count

    def until_s(self, wall_s: float) -> float:
        """Until when that stays as it is at an instant; infinite if it does for ever."""
        if not self._windows:
            return math.inf
        self.min_replicas(wall_s)
        # A window that opened long ago closes by itself.
        return min(self._until_s, wall_s + LOOK_BACK_S)


def windows_of(scaling: ScalingPolicy) -> tuple[Window, ...]:
    """The windows that a policy declares.

    One that cannot be read is left out. It could be when it was declared: this machine knows fewer
    time zones, and the others are no worse for it.
    """
    found = []
    for declared in scaling.windows:
        try:
            begin = cron.parse(declared.begin, declared.timezone)
            end = cron.parse(declared.end, declared.timezone)
        except cron.CronError:
            continue
        found.append(Window(begin, end, declared.min_replicas))
    return tuple(found)
