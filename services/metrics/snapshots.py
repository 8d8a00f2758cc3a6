"""The one view of load: node reports joined with the queues."""

from forebay.v1.metrics_pb2 import DeploymentLoad, LatencyQuantiles, Snapshot
from forebay.v1.node_pb2 import Node, NodeRegistration, NodeReport, ReplicaStatus
from services.metrics import nodes as node_table
from services.metrics.loads import DeploymentTotals, LoadTable
from services.metrics.nodes import NodeTable
from services.metrics.queues import Queues
from services.metrics.window import HistogramWindow, quantile
from services.runtime.clock import Clock
from services.wire import names

_COUNTED = {
    ReplicaStatus.STATE_READY: "ready_replica_count",
    ReplicaStatus.STATE_STARTING: "starting_replica_count",
    ReplicaStatus.STATE_DRAINING: "draining_replica_count",
    ReplicaStatus.STATE_FAILED: "failed_replica_count",
}


class Mesh:
    """Everything known about the mesh's load, and the snapshots of it."""

    def __init__(self, nodes: NodeTable, loads: LoadTable, queues: Queues, clock: Clock) -> None:
        self.nodes = nodes
        self.queues = queues
        self._loads = loads
        self._clock = clock

    def register(self, registration: NodeRegistration) -> str:
        """Begins a session and returns the node's id.

        Raises:
            ReportError: if the registration is not valid.
            TooManyNodesError: if there is no room for one more node.
        """
        node, anew = self.nodes.register(self._clock.monotonic_s(), registration)
        if anew:
            self._loads.begin_anew(node)
        return node

    def report(self, node: str, report: NodeReport) -> None:
        """Takes a report.

        Raises:
            ReportError: if it is not valid.
        """
        now_s = self._clock.monotonic_s()
        first = self.nodes.report(now_s, self._clock.wall_s(), node, report)
        self._loads.apply(now_s, node, node_table.counts(report.replicas), first)

    def node(self, node: str) -> Node | None:
        """A node as it is now; None if it is unknown or has not reported yet."""
        return self.nodes.node(self._clock.monotonic_s(), node)

    def list_nodes(self) -> list[Node]:
        """All nodes as they are now, by name."""
        return self.nodes.nodes(self._clock.monotonic_s())

    def forget(self) -> None:
        """Forgets what has been silent for long or was deleted."""
        self.nodes.forget(self._clock.monotonic_s())
        self._loads.forget(self.nodes.ids(), self._deployments(self.list_nodes()))

    def totals(self, deployment: str) -> DeploymentTotals | None:
        """What the replicas of a deployment have done since this process knows them."""
        return self._loads.totals(deployment)

    def snapshot(self) -> Snapshot:
        """The load of the whole mesh now."""
        nodes = self.list_nodes()
        loads = {
            deployment: DeploymentLoad(deployment=names.deployment_name(deployment))
            for deployment in sorted(self._deployments(nodes))
        }
        ages_s: dict[str, list[float]] = {deployment: [] for deployment in loads}
        now_s = self._clock.monotonic_s()
        for node in nodes:
            age_s = self.nodes.age_s(now_s, names.node_id(node.name))
            if node.state == Node.STATE_OFFLINE or age_s is None:
                continue
            for replica in node.replicas:
                deployment = names.deployment_id(replica.deployment)
                _count(loads[deployment], replica)
                ages_s[deployment].append(age_s)
        for deployment, load in loads.items():
            self._add_queue(load, deployment, ages_s[deployment])
            self._add_latencies(load, deployment, now_s)
            if ages_s[deployment]:
                load.age.FromNanoseconds(int(max(ages_s[deployment]) * 1e9))
        snapshot = Snapshot(deployments=loads.values(), nodes=nodes)
        snapshot.sample_time.FromNanoseconds(int(self._clock.wall_s() * 1e9))
        return snapshot

    def _deployments(self, nodes: list[Node]) -> set[str]:
        reported = {
            names.deployment_id(replica.deployment)
            for node in nodes
            if node.state != Node.STATE_OFFLINE
            for replica in node.replicas
        }
        return self.queues.deployments() | reported

    def _add_queue(self, load: DeploymentLoad, deployment: str, ages_s: list[float]) -> None:
        known = self.queues.state(deployment)
        if known is None:
            return
        state, age_s = known
        ages_s.append(age_s)
        load.queued_count = state.pending
        load.ongoing_count = state.ongoing
        load.redelivered_count = state.redelivered
        arrivals = self.queues.arrivals_per_second(deployment)
        if arrivals is not None:
            load.arrivals_per_second = arrivals

    def _add_latencies(self, load: DeploymentLoad, deployment: str, now_s: float) -> None:
        totals = self._loads.totals(deployment)
        if totals is None:
            return
        for window, quantiles in (
            (totals.queue_wait_window, load.queue_wait),
            (totals.service_time_window, load.service_time),
        ):
            _fill(quantiles, window, now_s)


def _count(load: DeploymentLoad, replica: ReplicaStatus) -> None:
    field = _COUNTED.get(replica.state)
    if field is not None:
        setattr(load, field, getattr(load, field) + 1)


def _fill(quantiles: LatencyQuantiles, window: HistogramWindow, now_s: float) -> None:
    observed = window.total(now_s)
    if observed is None:
        return
    quantiles.count = observed.count
    for q, field in ((0.5, quantiles.p50), (0.95, quantiles.p95), (0.99, quantiles.p99)):
        value_s = quantile(observed, q)
        assert value_s is not None, "something was observed"
        field.FromNanoseconds(int(value_s * 1e9))
