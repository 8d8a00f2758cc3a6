"""The most or the fewest replicas wished for within a delay. Pure: time is an argument.

There are as many more replicas as were wished for throughout the delay, and no fewer than were
wished for at any time within it: a sliding minimum and a sliding maximum. Each entry says what the
extreme since its instant has been; entries get nearer to the last wish as they get younger.
"""

from collections.abc import Callable
from operator import ge, le

MAX_ENTRIES = 64

Wishes = tuple[tuple[float, int], ...]
"""Instants in seconds, ascending, each with the extreme since then."""


def noted_fewest(wishes: Wishes, now_s: float, count: int, length_s: float) -> Wishes:
    """The fewest wished for, with one more wish, over the last `length_s` seconds."""
    return _noted(wishes, now_s, count, length_s, ge)


def noted_most(wishes: Wishes, now_s: float, count: int, length_s: float) -> Wishes:
    """The most wished for, with one more wish, over the last `length_s` seconds."""
    return _noted(wishes, now_s, count, length_s, le)


def since(wishes: Wishes, at_s: float) -> int | None:
    """The extreme since an instant; None if it is not known so far back."""
    found = None
    for entry_s, count in wishes:
        # Sums of seconds miss their exact value by far less than this.
        if entry_s > at_s + 1e-6:
            break
        found = count
    return found


def first_instant(wishes: Wishes, wanted: Callable[[int], bool]) -> float | None:
    """Since when the extreme has been as wanted; None if it is not."""
    return next((entry_s for entry_s, count in wishes if wanted(count)), None)


def _noted(
    wishes: Wishes,
    now_s: float,
    count: int,
    length_s: float,
    replaces: Callable[[int, int], bool],
) -> Wishes:
    if len(wishes) == 1 and wishes[0][1] == count:
        return wishes
    entries = list(wishes)
    at_s = now_s
    while entries and replaces(entries[-1][1], count):
        at_s = entries.pop()[0]
    if len(entries) < MAX_ENTRIES:
        entries.append((at_s, count))
    start_s = now_s - length_s
    gone = 0
    while gone + 1 < len(entries) and entries[gone + 1][0] <= start_s:
        gone += 1
    return tuple(entries[gone:])
