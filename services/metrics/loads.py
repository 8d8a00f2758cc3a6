"""What the replicas of each deployment have done, summed over agents. Pure: time is an argument.

Agents count since they started; here the differences are added up, so that totals only grow while
replicas come and go, and windows hold only what happened in them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.metrics.window import Histogram, HistogramWindow, difference, total


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """What an agent has counted for one replica since the agent started."""

    replica_id: str
    deployment: str
    attempts: Mapping[str, int]
    queue_wait: Histogram | None
    service_time: Histogram | None


@dataclass(slots=True)
class DeploymentTotals:
    """Everything counted for one deployment since this process knows it."""

    queue_wait_window: HistogramWindow
    service_time_window: HistogramWindow
    attempts: dict[str, int] = field(default_factory=dict)
    queue_wait: Histogram | None = None
    service_time: Histogram | None = None


class LoadTable:
    """Totals and windows by deployment."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._last: dict[str, dict[str, ReplicaCounts]] = {}
        self._totals: dict[str, DeploymentTotals] = {}

    def apply(
        self, now_s: float, node: str, replicas: Iterable[ReplicaCounts], first_report: bool
    ) -> None:
        """Adds what happened on a node since its last report.

        Args:
            now_s: monotonic seconds.
            node: id of the node.
            replicas: everything it reports.
            first_report: whether this is the first report seen of a node whose agent may be older
                than this process: what it counted until now belongs to no window.
        """
        before = self._last.get(node, {})
        now = {replica.replica_id: replica for replica in replicas}
        for replica in now.values():
            totals = self._totals.get(replica.deployment) or self._begin(replica.deployment)
            if not first_report:
                _add(totals, now_s, before.get(replica.replica_id), replica)
        self._last[node] = now

    def begin_anew(self, node: str) -> None:
        """Takes note that a node's agent was started anew and counts from zero."""
        self._last.pop(node, None)

    def forget(self, nodes: set[str], deployments: set[str]) -> None:
        """Forgets all but the given nodes and deployments."""
        for node in self._last.keys() - nodes:
            del self._last[node]
        for deployment in self._totals.keys() - deployments:
            del self._totals[deployment]

    def totals(self, deployment: str) -> DeploymentTotals | None:
        """What is known of a deployment; None if no replica of it was ever reported."""
        return self._totals.get(deployment)

    def _begin(self, deployment: str) -> DeploymentTotals:
        totals = DeploymentTotals(HistogramWindow(self._window_s), HistogramWindow(self._window_s))
        self._totals[deployment] = totals
        return totals


def _add(
    totals: DeploymentTotals, now_s: float, before: ReplicaCounts | None, now: ReplicaCounts
) -> None:
    old_attempts = before.attempts if before else {}
    began_anew = any(now.attempts.get(outcome, 0) < n for outcome, n in old_attempts.items())
    for outcome, count in now.attempts.items():
        new = count - (0 if began_anew else old_attempts.get(outcome, 0))
        totals.attempts[outcome] = totals.attempts.get(outcome, 0) + new
    if now.queue_wait is not None:
        observed = difference(before.queue_wait if before else None, now.queue_wait)
        totals.queue_wait = total(totals.queue_wait, observed)
        totals.queue_wait_window.add(now_s, observed)
    if now.service_time is not None:
        observed = difference(before.service_time if before else None, now.service_time)
        totals.service_time = total(totals.service_time, observed)
        totals.service_time_window.add(now_s, observed)
