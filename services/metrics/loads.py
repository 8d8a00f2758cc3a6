"""What the replicas of each deployment have done, summed over agents. Pure: time is an argument.

Agents count since they started; here the differences are added up, so that totals only grow while
replicas come and go, and windows hold only what happened in them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.metrics.window import Exemplar, Histogram, HistogramWindow, Sum, difference


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """What an agent has counted for one replica since the agent started."""

    replica_id: str
    deployment: str
    attempts: Mapping[str, int]
    queue_wait: Histogram | None
    service_time: Histogram | None


class Durations:
    """One kind of duration of one deployment: all since it is known, and the last window.

    Attributes:
        exemplars: the last one heard of for each bucket of the total, and when, in monotonic
            seconds: clocks of nodes may be wrong.
        told: which state of the window its reader has told last, and when; its reader's own.
    """

    __slots__ = ("exemplars", "told", "total", "window")

    def __init__(self, window_s: float) -> None:
        self.total: Sum | None = None
        self.exemplars: dict[int, tuple[Exemplar, float]] = {}
        self.told: tuple[int, int, float] = (-1, -1, float("-inf"))
        self.window = HistogramWindow(window_s)

    def add(self, now_s: float, before: Histogram | None, now: Histogram) -> None:
        """Adds what was observed between two reports of one replica."""
        if self.total is None:
            self.total = Sum(now.bounds_s)
        if before is not None and before.counts == now.counts and before.bounds_s == now.bounds_s:
            return
        observed = difference(before, now)
        self.total.add(observed)
        self.window.add(now_s, observed)
        if now.exemplars:
            self._remember(now_s, self.total, before.exemplars if before else (), now.exemplars)

    def _remember(
        self, now_s: float, total: Sum, before: tuple[Exemplar, ...], now: tuple[Exemplar, ...]
    ) -> None:
        known = frozenset(before)
        for exemplar in now:
            if exemplar not in known:
                bucket = bisect_left(total.bounds_s, exemplar.value_s)
                self.exemplars[bucket] = (exemplar, now_s)


@dataclass(slots=True)
class DeploymentTotals:
    """Everything counted for one deployment since this process knows it."""

    queue_wait: Durations
    service_time: Durations
    attempts: dict[str, int] = field(default_factory=dict)


class LoadTable:
    """Totals and windows by deployment."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._last: dict[str, dict[str, ReplicaCounts]] = {}
        self._totals: dict[str, DeploymentTotals] = {}

    def apply(
        self, now_s: float, node: str, replicas: Iterable[ReplicaCounts], first_report: bool
    ) -> set[str]:
        """Adds what happened on a node since its last report.

        Args:
            now_s: monotonic seconds.
            node: id of the node.
            replicas: everything it reports.
            first_report: whether this is the first report seen of a node whose agent may be older
                than this process: what it counted until now belongs to no window.

        Returns:
            Deployments of which attempts have ended.
        """
        before = self._last.get(node, {})
        now = {replica.replica_id: replica for replica in replicas}
        busy: set[str] = set()
        for replica in now.values():
            totals = self._totals.get(replica.deployment) or self._begin(replica.deployment)
            if first_report:
                continue
            old = before.get(replica.replica_id)
            if old is None or old.attempts != replica.attempts:
                _add_attempts(totals, old, replica)
                busy.add(replica.deployment)
            if replica.queue_wait is not None:
                totals.queue_wait.add(now_s, old.queue_wait if old else None, replica.queue_wait)
            if replica.service_time is not None:
                served = old.service_time if old else None
                totals.service_time.add(now_s, served, replica.service_time)
        self._last[node] = now
        return busy

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
        totals = DeploymentTotals(Durations(self._window_s), Durations(self._window_s))
        self._totals[deployment] = totals
        return totals


def _add_attempts(
    totals: DeploymentTotals, before: ReplicaCounts | None, now: ReplicaCounts
) -> None:
    old_attempts = before.attempts if before else {}
    began_anew = any(now.attempts.get(outcome, 0) < n for outcome, n in old_attempts.items())
    for outcome, count in now.attempts.items():
        new = count - (0 if began_anew else old_attempts.get(outcome, 0))
        totals.attempts[outcome] = totals.attempts.get(outcome, 0) + new
