"""Sliding windows over histograms that only ever grow. Pure: time is an argument.

A node agent counts since it started. What happened between two reports is the difference, and a
counter that went down means that the agent began anew, so that all it counts is new. Of a
difference only the buckets that changed are kept: a second of one replica changes two or three
of 17, and a thousand agents report 40,000 histograms a second.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from operator import sub

SLOTS = 10
"""Parts of a window: it slides by a tenth of its length. Each takes 400 bytes, and there are two
windows for each deployment: 80 MB with 10,000 busy deployments."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One of the observed durations, in seconds, and the trace that shows it."""

    value_s: float
    trace_id: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observed durations: bucket i counts those at most bounds_s[i], the last one the rest.

    Attributes:
        exemplars: at most one for each bucket.
    """

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float
    exemplars: tuple[Exemplar, ...] = ()

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Observed:
    """Durations observed between two states of a histogram.

    Attributes:
        bounds_s: upper bounds of the buckets.
        buckets: index and count of each bucket with something in it.
        sum_s: sum of the durations.
    """

    bounds_s: tuple[float, ...]
    buckets: tuple[tuple[int, int], ...]
    sum_s: float


def difference(before: Histogram | None, now: Histogram) -> Observed:
    """What was observed between two states of a growing histogram."""
    if before is None or before.bounds_s != now.bounds_s:
        return _all(now)
    changed = [
        (index, new - old)
        for index, (old, new) in enumerate(zip(before.counts, now.counts, strict=True))
        if new != old
    ]
    for _, count in changed:
        if count < 0:
            return _all(now)
    return Observed(now.bounds_s, tuple(changed), max(0.0, now.sum_s - before.sum_s))


def _all(histogram: Histogram) -> Observed:
    buckets = tuple((index, n) for index, n in enumerate(histogram.counts) if n)
    return Observed(histogram.bounds_s, buckets, histogram.sum_s)


class Sum:
    """Observations added up in the buckets of the first.

    With other bounds, each bucket goes into the first one that holds all of it.
    """

    __slots__ = ("_bounds_s", "_counts", "_sum_s", "count")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0
        self.count = 0

    def add(self, observed: Observed) -> None:
        """Adds observations."""
        counts = self._counts
        if observed.bounds_s == self._bounds_s:
            for index, n in observed.buckets:
                counts[index] += n
                self.count += n
        else:
            uppers_s = (*observed.bounds_s, float("inf"))
            for index, n in observed.buckets:
                counts[bisect_left(self._bounds_s, uppers_s[index])] += n
                self.count += n
        self._sum_s += observed.sum_s

    @property
    def bounds_s(self) -> tuple[float, ...]:
        """Upper bounds of its buckets."""
        return self._bounds_s

    def subtract(self, part: "Sum") -> None:
        """Takes off what was added to both; `part` began with the same bounds."""
        self._counts = list(map(sub, self._counts, part._counts))
        self._sum_s = max(0.0, self._sum_s - part._sum_s)
        self.count -= part.count

    def histogram(self) -> Histogram:
        """All of it."""
        return Histogram(self._bounds_s, tuple(self._counts), self._sum_s)


def quantiles(histogram: Histogram, qs: Iterable[float]) -> list[float]:
    """The q-quantiles in seconds of a histogram that is not empty, 0 ≤ q ≤ 1.

    Linear within the bucket, as Prometheus' `histogram_quantile`; beyond the last bound it is that
    bound, since nothing more is known.

    Raises:
        ValueError: if nothing was observed.
    """
    running = list(accumulate(histogram.counts))
    total = running[-1]
    if total == 0:
        raise ValueError("a histogram without observations has no quantiles")
    found: list[float] = []
    bounds_s, counts = histogram.bounds_s, histogram.counts
    for q in qs:
        rank = q * total
        index = bisect_left(running, rank)
        while not counts[index]:
            index += 1
        lower_s = bounds_s[index - 1] if index else 0.0
        if index == len(bounds_s):
            found.append(lower_s)
        else:
            share = 1 - (running[index] - rank) / counts[index]
            found.append(lower_s + (bounds_s[index] - lower_s) * share)
    return found


class HistogramWindow:
    """What was observed during the last `length_s` seconds.

    Attributes:
        version: rises whenever what the window holds changes, so that what was computed of it can
            be kept.
    """

    __slots__ = ("_length_s", "_slots", "_total", "version")

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._slots: deque[tuple[float, Sum]] = deque()
        self._total: Sum | None = None
        self.version = 0

    def add(self, now_s: float, observed: Observed) -> None:
        """Takes note of new observations; `now_s` never goes back."""
        if not observed.buckets:
            return
        self.slide(now_s)
        self.version += 1
        if self._total is None:
            self._total = Sum(observed.bounds_s)
        if not self._slots or now_s - self._slots[-1][0] >= self._length_s / SLOTS:
            # In the buckets of the whole, so that it can be taken off again.
            self._slots.append((now_s, Sum(self._total._bounds_s)))
        self._slots[-1][1].add(observed)
        self._total.add(observed)

    def slide(self, now_s: float) -> None:
        """Forgets what is older than the window."""
        slots = self._slots
        while slots and now_s - slots[0][0] >= self._length_s:
            _, gone = slots.popleft()
            self.version += 1
            if not slots:
                # Nothing is left: rounding errors of the sum go too, and new bounds may come.
                self._total = None
            elif self._total is not None:
                self._total.subtract(gone)

    def total(self, now_s: float) -> Histogram | None:
        """All observations in the window; None if there are none."""
        self.slide(now_s)
        return None if self._total is None else self._total.histogram()
