"""Who is called now, who waits and who is left alone. Pure: time is an argument.

A receiver that never answers holds a place for as long as a call may take. So that it cannot hold
up the others, there are only so many places for each host; a host that has not answered yet, or
failed last, gets one; and after a failure it is left alone for a while.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_RUNNING = 16
MAX_RUNNING_PER_HOST = 4
MAX_WAITING = 256
MAX_WAITING_PER_HOST = 64
LONGEST_WAIT_S = 10.0
"""Calls that could not be begun for so long go back to the queue: there they would be delivered a
second time soon."""

FIRST_REST_S = 5.0
LONGEST_REST_S = 60.0
MAX_HOSTS = 1000


class Offer(Enum):
    """What becomes of a call that was fetched."""

    TAKEN = auto()
    """It waits for its turn."""

    RESTS = auto()
    """Its host failed and is left alone for now."""

    CROWDED = auto()
    """There are enough that wait for its host."""


@dataclass(slots=True)
class _Host(Generic[T]):
    waiting: deque[tuple[float, T]] = field(default_factory=deque)
    running_count: int = 0
    answers: bool = False
    failed_count: int = 0
    rest_until_s: float = 0.0

    @property
    def may_run(self) -> int:
        return MAX_RUNNING_PER_HOST if self.answers else 1


class Hosts(Generic[T]):
    """Calls that were fetched from the queue."""

    def __init__(self) -> None:
        """There are none."""
        # In the order in which it is their turn.
        self._hosts: dict[str, _Host[T]] = {}
        self._running_count = 0
        self._waiting_count = 0

    @property
    def full(self) -> bool:
        """Whether no more should be fetched."""
        return self._waiting_count >= MAX_WAITING

    def offer(self, item: T, host: str, now_s: float) -> Offer:
        """Has a call wait for its turn, unless it should be fetched again later.

        Args:
            item: the call.
            host: whom it calls.
            now_s: the time.
        """
        there = self._hosts.get(host)
        if there is not None:
            if there.rest_until_s > now_s:
                return Offer.RESTS
            if len(there.waiting) >= MAX_WAITING_PER_HOST:
                return Offer.CROWDED
        else:
            self._forget_idle(now_s)
            there = self._hosts[host] = _Host()
        there.waiting.append((now_s, item))
        self._waiting_count += 1
        return Offer.TAKEN

    def start(self, now_s: float) -> list[T]:
        """Those that are to be begun now; each must be followed by `ended`."""
        started: list[T] = []
        for name in list(self._hosts):
            host = self._hosts[name]
            if host.rest_until_s > now_s:
                continue
            began = False
            while (
                host.waiting
                and host.running_count < host.may_run
                and self._running_count < MAX_RUNNING
            ):
                started.append(host.waiting.popleft()[1])
                self._waiting_count -= 1
                host.running_count += 1
                self._running_count += 1
                began = True
            if began:
                # Behind the others, whose turn is next.
                self._hosts[name] = self._hosts.pop(name)
        return started

    def ended(self, host: str, answered: bool, now_s: float) -> list[T]:
        """Takes note of the end of a call.

        Args:
            host: who was called.
            answered: whether there was any answer.
            now_s: the time.

        Returns:
            Those that waited for the same host and are not to be made now.
        """
        there = self._hosts[host]
        there.running_count -= 1
        self._running_count -= 1
        there.answers = answered
        if answered:
            there.failed_count, there.rest_until_s = 0, 0.0
            return []
        there.failed_count += 1
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(10, there.failed_count - 1))
        there.rest_until_s = now_s + rest_s
        return self._drop(there)

    def overdue(self, now_s: float) -> list[T]:
        """Those that have waited for too long; they wait no more."""
        found: list[T] = []
        for host in self._hosts.values():
            while host.waiting and now_s - host.waiting[0][0] >= LONGEST_WAIT_S:
                found.append(host.waiting.popleft()[1])
        self._waiting_count -= len(found)
        return found

    def clear(self) -> list[T]:
        """All that wait; they wait no more."""
        return [item for host in self._hosts.values() for item in self._drop(host)]

    def _drop(self, host: _Host[T]) -> list[T]:
        dropped = [item for _, item in host.waiting]
        host.waiting.clear()
        self._waiting_count -= len(dropped)
        return dropped

    def _forget_idle(self, now_s: float) -> None:
        """Makes room for one more host; those that wait or run are bounded by themselves."""
        if len(self._hosts) < MAX_HOSTS:
            return
        idle = [name for name, host in self._hosts.items() if not host.waiting]
        idle = [name for name in idle if not self._hosts[name].running_count]
        idle.sort(key=lambda name: self._hosts[name].rest_until_s > now_s)
        del self._hosts[idle[0]]
