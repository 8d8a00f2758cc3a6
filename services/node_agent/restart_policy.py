"""Pure: when a replica that failed is started again."""

from dataclasses import dataclass, replace

MAX_FAILURES = 3
MAX_EXCUSED_DEATHS = 20
"""Deaths in a row, with not one answer in between, that a bad task is known to have caused. So many
bad tasks may follow each other; a model that dies of all of them has to rest all the same."""

MAX_DEATHS_UNDER_REQUESTS = 6
"""A death with requests or tasks inside may be the doing of one of them, and a request is given up
after three deaths: one bad request must not break a replica, a model that dies of all must."""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 10.0
PROVEN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Failures:
    """How often a replica failed since it last proved itself.

    Attributes:
        own: failures to start, and deaths with nothing inside.
        under_requests: deaths with requests or tasks inside.
        excused: deaths that were known to be the fault of a bad task.
    """

    own: int = 0
    under_requests: int = 0
    excused: int = 0

    def after_failure(
        self, *, proven: bool, under_requests: bool, excused: bool = False
    ) -> "Failures":
        """One failure more.

        Args:
            proven: it had been READY for PROVEN_AFTER_S or had answered a request since its last
                start; then counting starts anew.
            under_requests: there were requests or tasks inside.
            excused: it is known whose fault it was, and that is not the replica's.
        """
        before = Failures() if proven else self
        if excused:
            return replace(before, excused=before.excused + 1)
        if under_requests:
            return replace(before, under_requests=before.under_requests + 1)
        return replace(before, own=before.own + 1)

    @property
    def broken(self) -> bool:
        """Whether it has failed so often that it is FAILED."""
        return (
            self.own >= MAX_FAILURES
            or self.under_requests >= MAX_DEATHS_UNDER_REQUESTS
            or self.excused >= MAX_EXCUSED_DEATHS
        )

    def wait_s(self, failure_retry_s: float) -> float:
        """Seconds until the next start: doubling from 0.5 s to 10 s; a long rest when broken."""
        if self.broken:
            return failure_retry_s
        count = max(1, self.own + self.under_requests)
        return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (count - 1))
