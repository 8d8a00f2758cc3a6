"""Pure: in which order results come out."""

from collections import deque
from typing import Generic, TypeVar

V = TypeVar("V")


class Turns(Generic[V]):
    """Results that wait to be handed out: as they come, or each when all before it have come."""

    def __init__(self, ordered: bool, first: int) -> None:
        """Begins.

        Args:
            ordered: whether results come out in the order of their positions.
            first: the first position.
        """
        self._ordered = ordered
        self._next = first
        self._held: dict[int, V] = {}
        self._ready: deque[tuple[int, V]] = deque()

    def put(self, position: int, value: V) -> None:
        """Takes a result in; each position once."""
        if not self._ordered:
            self._ready.append((position, value))
            return
        self._held[position] = value
        while self._next in self._held:
            self._ready.append((self._next, self._held.pop(self._next)))
            self._next += 1

    def take(self, limit: int) -> list[tuple[int, V]]:
        """Hands out at most `limit` results whose turn it is."""
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    @property
    def ready_count(self) -> int:
        """Results whose turn it is."""
        return len(self._ready)
