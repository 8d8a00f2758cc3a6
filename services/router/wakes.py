"""Tells the autoscaler that a request waits for a deployment without a ready replica."""

from services.router.directory import DeploymentDirectory
from services.runtime.clock import Clock
from services.wire import subjects
from services.wire.nats_link import NatsLink

REPEAT_AFTER_S = 0.25
"""A wake may be lost; the next waiting request repeats it, but no more often than this."""


class Wakes:
    """One wake for each deployment at a time."""

    def __init__(self, link: NatsLink, directory: DeploymentDirectory, clock: Clock) -> None:
        """Nobody was woken yet."""
        self._link = link
        self._directory = directory
        self._clock = clock
        # Bounded by the deployments there are: only those are told of.
        self._told_s: dict[str, float] = {}

    def tell(self, deployment: str) -> None:
        """Says that a request waits, if no replica is ready for it and NATS is there."""
        if self._directory.status(deployment).ready_replica_count:
            if deployment in self._told_s:
                del self._told_s[deployment]
            return
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s.get(deployment, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return
        if not self._link.client.is_connected:
            # The request is published again after the reconnection, and this is said with it.
            return
        self._told_s[deployment] = now_s
        self._link.client.send(subjects.wake(deployment), b"")
