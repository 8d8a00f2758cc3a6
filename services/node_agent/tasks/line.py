"""Pure: since when each request and task inside a Triton can have been at work.

A model has so many instances, and Triton gives them work in the order it came: of what is inside,
the oldest are at work and the others wait for them. A time limit that ran while a task waits inside
Triton would end models that work as they should.

Triton reads calls with several threads, so two that were given to it at the same moment may have
changed places. That shows when one is answered that should have waited; the newest of those taken
to be at work may have waited in its place, and counts as at work only from then on. A model that
hangs is still found: what hangs becomes the oldest, and once all instances hang nothing is
answered.
"""


class Line:
    """What is inside one Triton, oldest first."""

    def __init__(self, instances: int) -> None:
        """Nothing inside.

        Args:
            instances: of the model, at least 1.
        """
        self._instances = instances
        self._at_work: dict[int, float] = {}
        self._waiting: dict[int, None] = {}
        self._overtaken_s: dict[int, float] = {}

    def __len__(self) -> int:
        """How many are inside."""
        return len(self._at_work) + len(self._waiting)

    def enter(self, key: int, now_s: float) -> None:
        """A request or task was given to Triton."""
        if len(self._at_work) < self._instances:
            self._at_work[key] = now_s
        else:
            self._waiting[key] = None

    def leave(self, key: int, now_s: float, answered: bool = True) -> float:
        """Triton is done with it; the oldest that waits may be at work from now on.

        Args:
            key: what leaves.
            now_s: monotonic time.
            answered: False if it was never given to Triton, or broken off: what is not answered
                has overtaken nothing.

        Returns:
            For how long it can have been at work, in seconds; 0 if it has only waited, as one that
            was answered together with an older one.
        """
        since_s = self._at_work.pop(key, None)
        if since_s is None:
            if key in self._waiting:
                del self._waiting[key]
                if answered:
                    newest = next(reversed(self._at_work))
                    self._overtaken_s[newest] = now_s
            return 0.0
        self._overtaken_s.pop(key, None)
        if self._waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self._at_work[oldest] = now_s
        return now_s - since_s

    def at_work_since_s(self, key: int) -> float | None:
        """Since when it can have been at work; None if it waits."""
        return self._overtaken_s.get(key, self._at_work.get(key))
