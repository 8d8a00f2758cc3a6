"""Pure: when a replica that failed is started again."""

from dataclasses import dataclass, replace

MAX_FAILURES = 3
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 10.0
PROVEN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Failures:
    """How often a replica failed in a row.

    Attributes:
        count: failures since it last ran for PROVEN_AFTER_S.
    """

    count: int = 0

    def after_failure(self, ready_for_s: float) -> "Failures":
        """One failure more; a replica that had proven itself starts counting anew.

        Args:
            ready_for_s: how long it had been READY when it failed; 0 if it never was.
        """
        return Failures(1) if ready_for_s >= PROVEN_AFTER_S else replace(self, count=self.count + 1)

    @property
    def broken(self) -> bool:
        """Whether it has failed so often that it is FAILED."""
        return self.count >= MAX_FAILURES

    def wait_s(self, failure_retry_s: float) -> float:
        """Seconds until the next start: doubling from 0.5 s to 10 s; a long rest when broken."""
        if self.broken:
            return failure_retry_s
        return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** max(0, self.count - 1))
