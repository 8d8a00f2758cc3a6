"""Sliding windows over counters and histograms that only ever grow. Pure: time is an argument.

A node agent counts since it started. What happened between two reports is the difference, and a
counter that went down means that the agent began anew, so that all it counts is new.
"""

from collections import deque
from dataclasses import dataclass

SLOTS = 30
"""Parts of a window: it slides by a thirtieth of its length, and holds no more than that."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observed durations: bucket i counts those at most bounds_s[i], the last one the rest."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self.counts)


def difference(before: Histogram | None, now: Histogram) -> Histogram:
    """What was observed between two states of a growing histogram."""
    if before is None or before.bounds_s != now.bounds_s:
        return now
    counts = tuple(new - old for old, new in zip(before.counts, now.counts, strict=True))
    if any(count < 0 for count in counts):
        return now
    return Histogram(now.bounds_s, counts, max(0.0, now.sum_s - before.sum_s))


def total(first: Histogram | None, second: Histogram) -> Histogram:
    """Both together, in the buckets of `first`.

    With other bounds, each bucket of `second` goes into the first one that holds all of it.
    """
    if first is None:
        return second
    counts = list(first.counts)
    if first.bounds_s == second.bounds_s:
        counts = [a + b for a, b in zip(counts, second.counts, strict=True)]
    else:
        for bound, count in zip((*second.bounds_s, float("inf")), second.counts, strict=True):
            counts[_bucket(first.bounds_s, bound)] += count
    return Histogram(first.bounds_s, tuple(counts), first.sum_s + second.sum_s)


def quantile(histogram: Histogram, q: float) -> float | None:
    """The q-quantile in seconds, 0 ≤ q ≤ 1; None if nothing was observed.

    Linear within the bucket, as Prometheus' `histogram_quantile`; beyond the last bound it is that
    bound, since nothing more is known.
    """
    rank = q * histogram.count
    if histogram.count == 0:
        return None
    below, lower_s = 0, 0.0
    for upper_s, count in zip(histogram.bounds_s, histogram.counts, strict=False):
        if count and below + count >= rank:
            return lower_s + (upper_s - lower_s) * (rank - below) / count
        below += count
        lower_s = upper_s
    return lower_s


class HistogramWindow:
    """What was observed during the last `length_s` seconds."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._slots: deque[tuple[float, Histogram]] = deque()

    def add(self, now_s: float, observed: Histogram) -> None:
        """Takes note of new observations; `now_s` never goes back."""
        if observed.count == 0:
            return
        self._forget(now_s)
        if self._slots and now_s - self._slots[-1][0] < self._length_s / SLOTS:
            start_s, held = self._slots[-1]
            self._slots[-1] = (start_s, total(held, observed))
        else:
            self._slots.append((now_s, observed))

    def total(self, now_s: float) -> Histogram | None:
        """All observations in the window; None if there are none."""
        self._forget(now_s)
        result: Histogram | None = None
        for _, held in self._slots:
            result = total(result, held)
        return result

    def _forget(self, now_s: float) -> None:
        while self._slots and now_s - self._slots[0][0] >= self._length_s:
            self._slots.popleft()


@dataclass(frozen=True, slots=True)
class QueueState:
    """What JetStream says of a deployment's consumer.

    Attributes:
        incarnation: differs when the consumer was created anew.
        pending: stored and not delivered.
        delivered: deliveries since the consumer exists, repeated ones included.
        ongoing: delivered and not settled.
        redelivered: delivered more than once and not settled.
    """

    incarnation: str
    pending: int
    delivered: int
    ongoing: int
    redelivered: int


class ArrivalWindow:
    """How many requests were stored per second, from successive states of a consumer.

    What is stored is pending or was delivered, so arrivals are the growth of the sum of both.
    Repeated deliveries are taken off as far as they can be told: by the growth of `redelivered`.
    """

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._before: QueueState | None = None
        # Start, end and arrivals of each step.
        self._steps: deque[tuple[float, float, int]] = deque()
        self._before_s = 0.0

    def add(self, now_s: float, state: QueueState) -> None:
        """Takes note of a state; `now_s` never goes back."""
        before = self._before
        self._forget(now_s)
        if before is not None and before.incarnation == state.incarnation:
            repeated = max(0, state.redelivered - before.redelivered)
            stored = state.pending + state.delivered - before.pending - before.delivered - repeated
            self._append(now_s, max(0, stored))
        self._before, self._before_s = state, now_s

    def per_second(self, now_s: float) -> float | None:
        """Mean over the window; None until two states have been seen in it."""
        self._forget(now_s)
        if not self._steps:
            return None
        duration_s = self._steps[-1][1] - self._steps[0][0]
        if duration_s <= 0:
            return None
        return sum(stored for _, _, stored in self._steps) / duration_s

    def _append(self, now_s: float, stored: int) -> None:
        if self._steps:
            start_s, end_s, held = self._steps[-1]
            if end_s == self._before_s and now_s - start_s < self._length_s / SLOTS:
                self._steps[-1] = (start_s, now_s, held + stored)
                return
        self._steps.append((self._before_s, now_s, stored))

    def _forget(self, now_s: float) -> None:
        while self._steps and now_s - self._steps[0][0] > self._length_s:
            self._steps.popleft()


def _bucket(bounds_s: tuple[float, ...], bound_s: float) -> int:
    for index, candidate_s in enumerate(bounds_s):
        if bound_s <= candidate_s:
            return index
    return len(bounds_s)
