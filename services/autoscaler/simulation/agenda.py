"""A virtual clock and what is going to happen on it. Pure: no other clock is asked."""

import heapq
from collections.abc import Callable
from typing import Any

NEVER = float("inf")


class Agenda:
    """Actions by the instant at which they happen; those of one instant in the order they came.

    Attributes:
        now_s: the instant, in seconds from the beginning.
        heap: what is to come: instant, number, action and its arguments.
    """

    __slots__ = ("heap", "now_s", "number")

    def __init__(self) -> None:
        """At the beginning, with nothing to come."""
        self.now_s = 0.0
        self.number = 0
        self.heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, at_s: float, action: Callable[..., None], *args: Any) -> None:
        """Has an action done at an instant, which may be now but not earlier."""
        self.number += 1
        heapq.heappush(self.heap, (max(at_s, self.now_s), self.number, action, args))

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Has an action done in so many seconds."""
        self.at(self.now_s + delay_s, action, *args)
