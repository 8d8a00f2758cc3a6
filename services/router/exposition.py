"""A router's own counts for Prometheus. docs/metrics.md says what to do about each.

Label values are the deployments there are, so that the series stay bounded.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.router.counters import RouterCounters

UNKNOWN = ""
"""Stands for calls to deployments that there are not."""


class RouterCollector(Collector):
    """The metrics of one router."""

    def __init__(
        self,
        counters: RouterCounters,
        pending: Callable[[], int],
        deployments: Callable[[], list[str]],
        nats_connected: Callable[[], bool],
    ) -> None:
        """Collects when it is asked.

        Args:
            counters: of the router.
            pending: how many calls it holds.
            deployments: ids of the deployments there are.
            nats_connected: whether it is connected to NATS.
        """
        self._counters = counters
        self._pending = pending
        self._deployments = deployments
        self._nats_connected = nats_connected

    def describe(self) -> list[Metric]:
        """Nothing in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this instant."""
        yield GaugeMetricFamily(
            "forebay_nats_connected",
            "Whether the service is connected to NATS.",
            value=float(self._nats_connected()),
        )
        yield self._by_outcome(
            "forebay_router_calls", "Calls that ended, by outcome.", self._counters.calls
        )
        yield self._by_outcome(
            "forebay_router_submitted_tasks",
            "Tasks that were stored or refused, by outcome.",
            self._counters.submitted_tasks,
        )
        yield GaugeMetricFamily(
            "forebay_router_pending_calls", "Calls held now.", value=self._pending()
        )
        yield CounterMetricFamily(
            "forebay_router_late_replies",
            "Replies that came after their call had ended.",
            value=self._counters.late_replies,
        )

    def _by_outcome(self, name: str, text: str, counts: dict[tuple[str, str], int]) -> Metric:
        metric = CounterMetricFamily(name, text, labels=["deployment", "outcome"])
        known = {UNKNOWN, *self._deployments()}
        for (deployment, outcome), count in list(counts.items()):
            if deployment in known:
                metric.add_metric([deployment, outcome], count)
            else:
                # Deleted since: its series ends.
                del counts[deployment, outcome]
        return metric
