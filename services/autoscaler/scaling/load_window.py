"""The mean of a load over time. Pure: time is an argument."""

from collections import deque

MAX_SAMPLES = 4096


class LoadWindow:
    """Two loads over the last seconds, each taken to stand until the next is seen."""

    __slots__ = ("_length_s", "_samples", "_sums")

    def __init__(self, length_s: float) -> None:
        """An empty window.

        Args:
            length_s: how far back it goes.
        """
        self._length_s = length_s
        # (since, load, held load); the last one stands until now.
        self._samples: deque[tuple[float, float, float]] = deque()
        # Integrals of both between the first and the last sample.
        self._sums = [0.0, 0.0]

    @property
    def length_s(self) -> float:
        """How far back the window goes."""
        return self._length_s

    def add(self, now_s: float, load: float, held_load: float) -> None:
        """Takes note of the loads from now on; `now_s` never goes back."""
        if self._samples:
            since_s, before, held_before = self._samples[-1]
            if (before, held_before) == (load, held_load):
                self._forget(now_s)
                return
            self._sums[0] += before * (now_s - since_s)
            self._sums[1] += held_before * (now_s - since_s)
        self._samples.append((now_s, load, held_load))
        self._forget(now_s)
        if len(self._samples) > MAX_SAMPLES:
            self._join_first()

    def clear(self) -> None:
        """Forgets everything: there was a gap."""
        self._samples.clear()
        self._sums = [0.0, 0.0]

    def covers(self, now_s: float) -> bool:
        """Whether loads are known for the whole length."""
        return bool(self._samples) and now_s - self._samples[0][0] >= self._length_s

    def means(self, now_s: float) -> tuple[float, float] | None:
        """The means of both loads over what is known of the window; None if nothing is."""
        if not self._samples:
            return None
        self._forget(now_s)
        first_s, first, held_first = self._samples[0]
        last_s, last, held_last = self._samples[-1]
        start_s = max(first_s, now_s - self._length_s)
        duration_s = now_s - start_s
        if duration_s <= 0:
            return float(last), float(held_last)
        early_s = start_s - first_s
        if len(self._samples) == 1:
            return float(first), float(held_first)
        total = self._sums[0] - first * early_s + last * (now_s - last_s)
        held_total = self._sums[1] - held_first * early_s + held_last * (now_s - last_s)
        # Sums of many floats may end a hair below zero.
        return max(0.0, total / duration_s), max(0.0, held_total / duration_s)

    def _forget(self, now_s: float) -> None:
        """Drops samples that ended before the window; the one that reaches into it stays."""
        start_s = now_s - self._length_s
        while len(self._samples) > 1 and self._samples[1][0] <= start_s:
            self._drop_first()

    def _join_first(self) -> None:
        """Makes one of the two oldest samples: what is left is coarse only where it is oldest."""
        first_s, first, held_first = self._samples.popleft()
        second_s, second, held_second = self._samples.popleft()
        early_s, late_s = second_s - first_s, self._samples[0][0] - second_s
        whole_s = early_s + late_s
        self._samples.appendleft(
            (
                first_s,
                (first * early_s + second * late_s) / whole_s,
                (held_first * early_s + held_second * late_s) / whole_s,
            )
        )

    def _drop_first(self) -> None:
        since_s, load, held_load = self._samples.popleft()
        if len(self._samples) == 1:
            self._sums = [0.0, 0.0]
            return
        until_s = self._samples[0][0]
        self._sums[0] -= load * (until_s - since_s)
        self._sums[1] -= held_load * (until_s - since_s)
