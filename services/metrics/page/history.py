"""What was so at each of the last instants, in columns of one length. Pure: time is an argument.

All groups (such as deployments) share the instants. What was not known at an instant is
NaN here and null for readers, never 0; so is what nobody was looking at.
"""

import math
from array import array
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

INTERVAL_S = 2.0
LENGTH = 900
"""Instants kept: half an hour."""

MAX_COLUMNS = 32
"""Of a group. Each that ever held a value takes 3.6 KB: a deployment's history about 80 KB."""

_NAN = math.nan


@dataclass(slots=True)
class _Group:
    columns: "dict[str, array[float]]" = field(default_factory=dict)
    put_tick: int = -1
    used_tick: int = -1


@dataclass(frozen=True, slots=True)
class Series:
    """Part of a group's history.

    Attributes:
        ticks: number of the first and of the one after the last instant; they rise by one for each.
        times_s: the instants, in seconds since the epoch.
        values: by column, one for each instant; None where it is not known.
    """

    ticks: tuple[int, int]
    times_s: list[float]
    values: dict[str, list[float | None]]


class History:
    """Columns of numbers by group, over the last `length` instants.

    Attributes:
        tick: number of the last instant; -1 before the first.
    """

    def __init__(self, max_groups: int, length: int = LENGTH) -> None:
        """An empty history.

        Args:
            max_groups: groups kept; of more, those go that were not in use for longest.
            length: instants kept, at least 1.
        """
        self._length = length
        self._max_groups = max_groups
        self._times_s = array("d", [_NAN]) * length
        self._groups: dict[str, _Group] = {}
        self._full_tick = -1
        self.tick = -1

    def begin(self, now_wall_s: float) -> None:
        """Begins the next instant."""
        self.tick += 1
        self._times_s[self.tick % self._length] = now_wall_s

    def put(self, group: str, values: Mapping[str, float | None], in_use: bool = True) -> bool:
        """Takes note of a group at this instant.

        Args:
            group: which.
            values: by column; at most MAX_COLUMNS in a group's life, those beyond are left out.
            in_use: whether it is worth more than a group that is not.

        Returns:
            False if there was no room: all others are in use, or this one is not.
        """
        kept = self._groups.get(group)
        if kept is None:
            if len(self._groups) >= self._max_groups and not (in_use and self._make_room()):
                return False
            kept = self._groups[group] = _Group()
        if in_use:
            kept.used_tick = self.tick
        slot = self.tick % self._length
        self._blank(kept)
        for name, value in values.items():
            if value is None:
                continue
            column = kept.columns.get(name)
            if column is None:
                if len(kept.columns) >= MAX_COLUMNS:
                    continue
                column = kept.columns[name] = array("f", [_NAN]) * self._length
            column[slot] = value
        return True

    @property
    def has_room(self) -> bool:
        """Whether one more group that is in use may find room at this instant."""
        return len(self._groups) < self._max_groups or self._full_tick != self.tick

    def __contains__(self, group: str) -> bool:
        return group in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def series(self, group: str, since_tick: int = -1) -> Series:
        """A group's history after an instant; empty for a group that is not kept.

        Args:
            group: which.
            since_tick: number of the instant after which to begin.
        """
        first = max(since_tick + 1, self.tick + 1 - self._length, 0)
        ticks = range(first, self.tick + 1)
        times_s = [round(self._times_s[tick % self._length], 1) for tick in ticks]
        kept = self._groups.get(group)
        values: dict[str, list[float | None]] = {}
        if kept is not None:
            for name, column in kept.columns.items():
                values[name] = [
                    _number(column[tick % self._length]) if tick <= kept.put_tick else None
                    for tick in ticks
                ]
        return Series((first, max(first, self.tick + 1)), times_s, values)

    def keep(self, groups: Set[str]) -> None:
        """Forgets all but the given groups."""
        for gone in self._groups.keys() - groups:
            del self._groups[gone]

    def _blank(self, group: _Group) -> None:
        """Makes the instants unknown at which nothing was put, and this one until it is."""
        for tick in range(max(group.put_tick, self.tick - self._length) + 1, self.tick + 1):
            for column in group.columns.values():
                column[tick % self._length] = _NAN
        group.put_tick = self.tick

    def _make_room(self) -> bool:
        """Forgets the group not in use for longest, if it was not at this instant or the last.

        Of those that were at the last, none must go: its turn at this one may be yet to come.
        """
        if self._full_tick == self.tick:
            return False
        oldest = min(self._groups, key=lambda group: self._groups[group].used_tick)
        if self._groups[oldest].used_tick >= self.tick - 1:
            self._full_tick = self.tick
            return False
        del self._groups[oldest]
        return True


def _number(value: float) -> float | None:
    if math.isnan(value) or math.isinf(value):
        return None
    # Of 32-bit numbers the seventh digit is not one that was measured.
    return int(value) if value.is_integer() else float(f"{value:.6g}")
