"""A router's own counts as Prometheus text. docs/metrics.md says what to do about each.

Label values are the deployments there are, so that the series stay bounded.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.router.counters import RouterCounters
from services.runtime import ports

UNKNOWN = ""
"""Stands for calls to deployments that there are not."""


class RouterCollector(Collector):
    """The metrics of one router."""

    def __init__(
        self,
        counters: RouterCounters,
        pending: Callable[[], int],
        deployments: Callable[[], list[str]],
    ) -> None:
        """Collects when it is asked.

        Args:
            counters: of the router.
            pending: how many calls it holds.
            deployments: ids of the deployments there are.
        """
        self._counters = counters
        self._pending = pending
        self._deployments = deployments

    def describe(self) -> list[Metric]:
        """Nothing in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this instant."""
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


def serve(address: str, collector: RouterCollector) -> Callable[[], None]:
    """Serves the metrics over HTTP from a thread of its own; returns what stops it.

    Raises:
        ports.AddressError: if the address cannot be listened on.
    """
    ports.check_free(address)
    registry = CollectorRegistry()
    registry.register(collector)
    host, port = ports.split(address)
    server, thread = start_http_server(port, host, registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
