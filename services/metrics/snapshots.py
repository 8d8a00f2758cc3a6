"""The one view of load: node reports joined with the queues of requests and tasks.

A snapshot of 10,000 deployments and 20,000 replicas is asked for twice a second by each autoscaler.
So it is built as bytes, from pieces that are kept while what they say has not changed, and nodes
come without what their replicas have counted.
"""

from google.protobuf.duration_pb2 import Duration

from forebay.v1.metrics_pb2 import DeploymentLoad, LatencyQuantiles, Snapshot
from forebay.v1.node_pb2 import Node, NodeRegistration, NodeReport, ReplicaStatus
from services.metrics.loads import DeploymentTotals, Durations, LoadTable
from services.metrics.nodes import NodeTable
from services.metrics.queues import Queues, QueueSignals
from services.metrics.refusals import Refusals
from services.metrics.report_check import ReportError
from services.metrics.task_lanes import TaskSignals
from services.metrics.task_queues import TaskQueues
from services.metrics.window import quantiles
from services.runtime.clock import Clock
from services.wire import names

_QUANTILES = (0.5, 0.95, 0.99)

LATENCY_INTERVAL_S = 1.0
"""Quantiles are taken anew at most this often. With 10,000 busy deployments that takes 0.1 s, as
much as all the rest of a snapshot."""

_STATES = max(ReplicaStatus.State.values()) + 1


class _Replicas:
    """The replicas of one deployment on nodes that are there."""

    __slots__ = ("counts", "oldest_report_s", "started_count", "startup_s")

    def __init__(self) -> None:
        self.oldest_report_s = 0.0
        self.startup_s = 0.0
        self.started_count = 0
        self.counts = [0] * _STATES


_NO_REPLICAS = _Replicas()


class Mesh:
    """Everything known about the mesh's load, and the snapshots of it."""

    def __init__(
        self,
        nodes: NodeTable,
        loads: LoadTable,
        queues: Queues,
        tasks: TaskQueues,
        clock: Clock,
    ) -> None:
        self.nodes = nodes
        self.queues = queues
        self._tasks = tasks
        self.refusals = Refusals()
        self._loads = loads
        self._clock = clock
        # One message for all snapshots: most of what is said of a deployment stays as it is.
        self._held: list[str] = []
        self._snapshot = Snapshot()
        # Rises when that message is begun anew.
        self._edition = 0
        self._chunks: dict[str, tuple[Node, bytes]] = {}

    def register(self, registration: NodeRegistration) -> str:
        """Begins a session and returns the node's id.

        Raises:
            ReportError: if the registration is not valid.
            TooManyNodesError: if there is no room for one more node.
        """
        node, anew = self.nodes.register(self._clock.monotonic_s(), registration)
        if anew:
            self._loads.apply(self._clock.monotonic_s(), node, self.nodes.uncounted(node), False)
            self._loads.begin_anew(node)
        return node

    def report(self, node: str, report: NodeReport) -> None:
        """Takes a report.

        Raises:
            ReportError: if it is not valid; nothing of it is kept, and it is counted.
        """
        now_s = self._clock.monotonic_s()
        taken = self.nodes.report(now_s, self._clock.wall_s(), node, report)
        for counts in taken.counts:
            for deployment in self._loads.apply(now_s, node, counts, taken.first):
                self.queues.worked(deployment)

    def refused(self, node: str, error: ReportError) -> bool:
        """Counts a refused report and returns whether to log it."""
        return self.refusals.add(self._clock.monotonic_s(), node, error.reason)

    def node(self, node: str) -> Node | None:
        """A node as it is now; None if it is unknown or has not reported yet."""
        return self.nodes.node(self._clock.monotonic_s(), node)

    def list_nodes(self) -> list[Node]:
        """All nodes as they are now, by name."""
        return self.nodes.nodes(self._clock.monotonic_s())

    def forget(self) -> None:
        """Forgets what has been silent for long or was deleted."""
        now_s = self._clock.monotonic_s()
        self.nodes.forget(now_s)
        nodes = self.nodes.ids()
        deployments = self.queues.deployments() | self._replicas(now_s).keys()
        self._loads.forget(nodes, deployments)
        self.refusals.forget(nodes)
        for name in self._chunks.keys() - {names.node_name(node) for node in nodes}:
            del self._chunks[name]

    def totals(self, deployment: str) -> DeploymentTotals | None:
        """What the replicas of a deployment have done since this process knows them."""
        return self._loads.totals(deployment)

    def snapshot(self) -> Snapshot:
        """The load of the whole mesh now."""
        snapshot: Snapshot = Snapshot.FromString(self.serialized_snapshot())
        return snapshot

    def serialized_snapshot(self) -> bytes:
        """The load of the whole mesh now, as a serialised Snapshot.

        Serialised messages of one type put after each other are their sum (protobuf's encoding
        guide, "Last One Wins"), so nodes that have not reported since the last time are not
        serialised again.
        """
        now_s = self._clock.monotonic_s()
        replicas = self._replicas(now_s)
        snapshot = self._message(sorted(self.queues.deployments() | replicas.keys()))
        wall_s = self._clock.wall_s()
        self.nodes.set_clock(now_s, wall_s)
        snapshot.sample_time.FromNanoseconds(int(wall_s * 1e9))
        for deployment, load in zip(self._held, snapshot.deployments, strict=True):
            self._fill(load, deployment, replicas.get(deployment), now_s)
        pieces = [snapshot.SerializeToString()]
        pieces += [self._chunk(node) for node in self.nodes.slim_nodes(now_s)]
        return b"".join(pieces)

    def _message(self, deployments: list[str]) -> Snapshot:
        """The message that is filled in anew each time, with a load for each deployment."""
        if deployments != self._held:
            self._held = deployments
            self._edition += 1
            self._snapshot = Snapshot()
            for deployment in deployments:
                self._snapshot.deployments.add(deployment=names.deployment_name(deployment))
        return self._snapshot

    def _chunk(self, node: Node) -> bytes:
        kept = self._chunks.get(node.name)
        if kept is None or kept[0] is not node:
            kept = self._chunks[node.name] = (node, Snapshot(nodes=[node]).SerializeToString())
        return kept[1]

    def _replicas(self, now_s: float) -> dict[str, _Replicas]:
        found: dict[str, _Replicas] = {}
        for age_s, rows in self.nodes.present(now_s):
            for row in rows:
                replicas = found.get(row.deployment)
                if replicas is None:
                    replicas = found[row.deployment] = _Replicas()
                replicas.counts[row.state] += 1
                if age_s > replicas.oldest_report_s:
                    replicas.oldest_report_s = age_s
                if row.startup_s is not None:
                    replicas.startup_s += row.startup_s
                    replicas.started_count += 1
        return found

    def _fill(
        self, load: DeploymentLoad, deployment: str, replicas: _Replicas | None, now_s: float
    ) -> None:
        age_s = _fill_queues(load, self.queues.signals(deployment), self._tasks.signals(deployment))
        if replicas is None:
            replicas = _NO_REPLICAS
        elif age_s is None or replicas.oldest_report_s > age_s:
            age_s = replicas.oldest_report_s
        counts = replicas.counts
        load.ready_replica_count = counts[ReplicaStatus.STATE_READY]
        load.starting_replica_count = counts[ReplicaStatus.STATE_STARTING]
        load.draining_replica_count = counts[ReplicaStatus.STATE_DRAINING]
        load.failed_replica_count = counts[ReplicaStatus.STATE_FAILED]
        if replicas.started_count:
            _set(load.startup_time, replicas.startup_s / replicas.started_count)
        else:
            load.ClearField("startup_time")
        load.poison_count = self.poison_count(deployment)
        load.dead_task_count = self._tasks.dead_count(deployment)
        totals = self._loads.totals(deployment)
        if totals is None:
            load.ClearField("queue_wait")
            load.ClearField("service_time")
        else:
            self._fill_latencies(load, "queue_wait", totals.queue_wait, now_s)
            self._fill_latencies(load, "service_time", totals.service_time, now_s)
        if age_s is None:
            load.ClearField("age")
        else:
            _set(load.age, age_s)

    def poison_count(self, deployment: str) -> int:
        """Requests of a deployment set aside since this process knows it.

        Either the agent said so (it ended the request as ABORTED and had it deleted), or no agent
        was left to say it and the server did when the deliveries were used up. The first keeps the
        second from happening, so no request counts twice.
        """
        totals = self._loads.totals(deployment)
        aborted = totals.attempts.get("aborted", 0) if totals is not None else 0
        return aborted + self.queues.poison_count(deployment)

    def _fill_latencies(
        self, load: DeploymentLoad, field: str, durations: Durations, now_s: float
    ) -> None:
        """Fills in quantiles, or clears them if nothing ended in the window."""
        window = durations.window
        window.slide(now_s)
        edition, version, told_s = durations.told
        if edition == self._edition and (
            version == window.version or now_s - told_s < LATENCY_INTERVAL_S
        ):
            return
        durations.told = (self._edition, window.version, now_s)
        observed = window.total(now_s)
        if observed is None:
            load.ClearField(field)
            return
        known: LatencyQuantiles = getattr(load, field)
        known.count = observed.count
        values_s = quantiles(observed, _QUANTILES)
        for quantile, value_s in zip((known.p50, known.p95, known.p99), values_s, strict=True):
            _set(quantile, value_s)
        _set(known.mean, observed.sum_s / known.count)


def _fill_queues(
    load: DeploymentLoad, requests: QueueSignals | None, tasks: TaskSignals | None
) -> float | None:
    """Fills in what is known of both queues, clears what is not, and returns its age in seconds.

    Of requests and tasks together nothing is known unless it is of both. Tasks that were delivered
    before are none of `redelivered_count`: they wait for their next attempt and must have a replica
    for it, while such a request may be what kills the replicas.
    """
    if tasks is None:
        load.ClearField("queued_task_count")
        load.ClearField("ongoing_task_count")
    else:
        load.queued_task_count = tasks.queued
        load.ongoing_task_count = tasks.ongoing
    if requests is None:
        load.ClearField("redelivered_count")
        load.ClearField("oldest_queued_age")
    else:
        load.redelivered_count = requests.redelivered
        if requests.oldest_queued_age_s is None:
            load.ClearField("oldest_queued_age")
        else:
            _set(load.oldest_queued_age, requests.oldest_queued_age_s)
    if requests is None or tasks is None:
        for field in ("queued_count", "ongoing_count", "arrivals_per_second"):
            load.ClearField(field)
        known = requests or tasks
        return known.age_s if known else None
    load.queued_count = requests.queued + tasks.queued
    load.ongoing_count = requests.ongoing + tasks.ongoing
    if requests.arrivals_per_second is None or tasks.arrivals_per_second is None:
        load.ClearField("arrivals_per_second")
    else:
        load.arrivals_per_second = requests.arrivals_per_second + tasks.arrivals_per_second
    return max(requests.age_s, tasks.age_s)


def _set(duration: Duration, value_s: float) -> None:
    # A third of what FromNanoseconds takes, and there are up to eleven in each load.
    duration.seconds, duration.nanos = divmod(int(value_s * 1e9), 1_000_000_000)
