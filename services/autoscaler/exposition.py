"""What the autoscaler decides, for Prometheus. docs/metrics.md says what to do about each metric.

What is decided is told by the leader alone, so that sums over all autoscalers are right. What is
seen, such as replicas that are ready, the metrics service tells.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from forebay.v1.deployment_pb2 import DeploymentStatus
from services.autoscaler.decision_counts import Counted, DecisionCounts
from services.autoscaler.leadership import Leadership
from services.autoscaler.load import LoadWatch
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

_DIRECTIONS = ("up", "down", "hold")


@dataclass(frozen=True, slots=True)
class Look:
    """All that is exposed, of one instant; it changes no more.

    Attributes:
        leading: whether this autoscaler leads; the rest is empty if it does not.
        snapshot_age_s: of the last view of the mesh, in seconds; None before the first.
        sees: whether that is new enough to act on.
        statuses: a serialised DeploymentStatus by id of the deployment.
        decisions: by id of each declared deployment.
    """

    nats_connected: bool
    leading: bool
    snapshot_age_s: float | None
    sees: bool
    statuses: Mapping[str, bytes]
    decisions: Mapping[str, Counted]


class Exposition:
    """Looks at an autoscaler for each scrape."""

    def __init__(
        self,
        link: NatsLink,
        leadership: Leadership,
        load: LoadWatch,
        deployments: KvMirror,
        decisions: DecisionCounts,
    ) -> None:
        """Looks at nothing before it is asked.

        Args:
            link: to NATS.
            leadership: whether this autoscaler leads.
            load: what it sees of the mesh.
            deployments: `spec.{deployment}` and `status.{deployment}`.
            decisions: how often each was scaled.
        """
        self._link = link
        self._leadership = leadership
        self._load = load
        self._deployments = deployments
        self._decisions = decisions

    def look(self) -> Look:
        """What there is at this instant; to be called on the event loop."""
        leading = self._leadership.leading
        declared = self._deployments.entries("spec.") if leading else {}
        statuses = self._deployments.entries("status.") if leading else {}
        return Look(
            self._link.connected,
            leading,
            self._load.age_s,
            self._load.fresh() is not None,
            {id_: entry.value for id_, entry in statuses.items() if id_ in declared},
            self._decisions.of(declared) if leading else {},
        )


class AutoscalerCollector(Collector):
    """The metrics of one autoscaler."""

    def __init__(self, look: Callable[[], Look]) -> None:
        """Collects when it is asked.

        Args:
            look: what there is.
        """
        self._look = look

    def describe(self) -> list[Metric]:
        """Nothing in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this instant."""
        look = self._look()
        yield GaugeMetricFamily(
            "forebay_nats_connected",
            "Whether the service is connected to NATS.",
            value=float(look.nats_connected),
        )
        yield GaugeMetricFamily(
            "forebay_autoscaler_leading", "Whether it leads.", value=float(look.leading)
        )
        age = GaugeMetricFamily(
            "forebay_autoscaler_snapshot_age_seconds", "Age of the last view of the mesh."
        )
        if look.snapshot_age_s is not None:
            age.add_metric([], look.snapshot_age_s)
        yield age
        yield from _replicas(look)
        yield from _decisions(look)


def _replicas(look: Look) -> Iterator[Metric]:
    target = GaugeMetricFamily(
        "forebay_target_replicas", "Replicas decided on.", labels=["deployment"]
    )
    assigned = GaugeMetricFamily(
        "forebay_assigned_replicas", "Replicas bound to a node.", labels=["deployment"]
    )
    unplaced = GaugeMetricFamily(
        "forebay_unplaced_replicas", "Replicas that have no place.", labels=["deployment"]
    )
    for deployment, serialized in look.statuses.items():
        status = DeploymentStatus.FromString(serialized)
        target.add_metric([deployment], status.target_replica_count)
        assigned.add_metric([deployment], status.assigned_replica_count)
        if look.sees:
            # Else it says what had no place when the mesh was last seen.
            unplaced.add_metric([deployment], status.unplaced_replica_count)
    yield from (target, assigned, unplaced)


def _decisions(look: Look) -> Iterator[Metric]:
    decisions = CounterMetricFamily(
        "forebay_scale_decisions",
        "Scale decisions by what became of the target.",
        labels=["deployment", "direction"],
    )
    last = GaugeMetricFamily(
        "forebay_last_scale_decision_time_seconds",
        "When the last scale decision was made.",
        labels=["deployment"],
    )
    for deployment, counted in look.decisions.items():
        # Zeros too: a counter that begins at one never rises.
        for direction in _DIRECTIONS:
            decisions.add_metric([deployment, direction], getattr(counted, direction))
        if counted.last_s is not None:
            last.add_metric([deployment], counted.last_s)
    yield from (decisions, last)
