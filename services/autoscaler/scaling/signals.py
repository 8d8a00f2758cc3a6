"""What is seen of a deployment at one instant. Pure.

Tasks count as requests do: whatever is said of requests here and in the sentences of a decision is
true of tasks, except that a task delivered again is work like any other.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signals:
    """What is seen of a deployment. None is not known; it is never taken for zero.

    Attributes:
        queued: requests stored and not yet delivered.
        ongoing: requests delivered and not yet settled, redelivered ones included.
        redelivered: requests delivered more than once and not yet settled.
        mean_load: mean of `load` over the policy's look-back period.
        mean_held_load: mean of `held_load` over the same period.
        service_time_s: mean time inside the replica.
        arrivals_per_s: requests stored per second.
        queue_wait_p95_s: 95th percentile of the time from stored to delivered.
        age_s: age of the oldest input.
        poison: requests set aside after too many deliveries.
        assigned: replicas that are assigned, whatever their state.
        ready: those that answer.
        starting: those that start for the first time and within their time.
        unstartable: those that failed, or start again, or for longer than they should.
        custom: what the custom policy returned.
        custom_error: why it has no answer; empty if it has one or is not used.
        window_min: the most replicas that an open window of the policy asks for; 0 if none is open.
    """

    queued: int | None = None
    ongoing: int | None = None
    redelivered: int | None = None
    mean_load: float | None = None
    mean_held_load: float | None = None
    service_time_s: float | None = None
    arrivals_per_s: float | None = None
    queue_wait_p95_s: float | None = None
    age_s: float | None = None
    poison: int | None = None
    assigned: int = 0
    ready: int = 0
    starting: int = 0
    unstartable: int = 0
    custom: float | None = None
    custom_error: str = ""
    window_min: int = 0

    @property
    def held_load(self) -> int | None:
        """Requests that wait or run: what must not lose its replicas."""
        if self.queued is None or self.ongoing is None:
            return None
        return self.queued + self.ongoing

    @property
    def load(self) -> int | None:
        """Requests that may ask for more replicas: deliveries known to be repeated do not."""
        held = self.held_load
        return None if held is None else max(0, held - (self.redelivered or 0))
