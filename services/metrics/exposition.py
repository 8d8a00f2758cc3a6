"""The mesh's load as Prometheus text. docs/metrics.md says what to do about each metric.

Everything is read from one snapshot at each scrape, so that a series vanishes together with the
deployment, node or GPU it speaks of, and what is not known is absent rather than zero.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from forebay.v1.metrics_pb2 import DeploymentLoad, Snapshot
from forebay.v1.node_pb2 import Node, ReplicaStatus
from services.metrics.snapshots import Mesh
from services.metrics.window import Sum
from services.wire import names

_STATES = [
    ReplicaStatus.STATE_STARTING,
    ReplicaStatus.STATE_READY,
    ReplicaStatus.STATE_DRAINING,
    ReplicaStatus.STATE_FAILED,
]


class MeshCollector(Collector):
    """The metrics of one mesh."""

    def __init__(self, mesh: Mesh, nats_connected: Callable[[], bool]) -> None:
        self._mesh = mesh
        self._nats_connected = nats_connected

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not need a snapshot."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this instant."""
        snapshot = self._mesh.snapshot()
        yield GaugeMetricFamily(
            "forebay_nats_connected",
            "Whether metrics is connected to NATS.",
            value=float(self._nats_connected()),
        )
        yield from _queues(snapshot)
        yield from self._replicas(snapshot)
        yield from _nodes(snapshot)
        yield from _resources(snapshot)
        refused = CounterMetricFamily(
            "forebay_reports_refused", "Reports that were refused, by reason.", labels=["reason"]
        )
        for reason, count in self._mesh.refusals.counts.items():
            refused.add_metric([reason.value], count)
        yield refused

    def _replicas(self, snapshot: Snapshot) -> Iterator[Metric]:
        attempts = CounterMetricFamily(
            "forebay_attempts",
            "Attempts that ended, by outcome.",
            labels=["deployment", "outcome"],
        )
        queue_wait = HistogramMetricFamily(
            "forebay_queue_wait_seconds", "Time from stored to delivered.", labels=["deployment"]
        )
        service_time = HistogramMetricFamily(
            "forebay_service_time_seconds", "Time inside the replica.", labels=["deployment"]
        )
        yield _replica_states(snapshot)
        yield _replica_memory(snapshot)
        for load in snapshot.deployments:
            deployment = names.deployment_id(load.deployment)
            totals = self._mesh.totals(deployment)
            if totals is None:
                continue
            for outcome, count in sorted(totals.attempts.items()):
                attempts.add_metric([deployment, outcome], count)
            _add_histogram(queue_wait, deployment, totals.queue_wait.total)
            _add_histogram(service_time, deployment, totals.service_time.total)
        yield from (attempts, queue_wait, service_time)


class _Collected(Collector):
    """What was collected, to be put into words elsewhere."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def registry(mesh: Mesh, nats_connected: Callable[[], bool]) -> CollectorRegistry:
    """A registry with the metrics of the mesh and of this process."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(MeshCollector(mesh, nats_connected))
    return made


def collected(made: CollectorRegistry) -> CollectorRegistry:
    """The metrics of this instant, which change no more and may go to another thread."""
    copy = CollectorRegistry()
    copy.register(_Collected(list(made.collect())))
    return copy


def text(made: CollectorRegistry) -> bytes:
    """Prometheus text format 0.0.4."""
    return generate_latest(made)


def _queues(snapshot: Snapshot) -> Iterator[Metric]:
    for state, meaning in (
        ("queued", "stored and not yet delivered"),
        ("ongoing", "delivered and not yet settled"),
    ):
        yield _requests(snapshot, f"forebay_{state}_requests", f"Requests {meaning}.", state)
        task_count = f"{state}_task_count"
        yield _by_deployment(snapshot, f"forebay_{state}_tasks", f"Tasks {meaning}.", task_count)
    for name, help_text, field in (
        (
            "forebay_redelivered_requests",
            "Requests delivered more than once and not yet settled.",
            "redelivered_count",
        ),
        (
            "forebay_arrivals_per_second",
            "Requests and tasks stored per second over the last window.",
            "arrivals_per_second",
        ),
    ):
        yield _by_deployment(snapshot, name, help_text, field)
    for name, help_text, field in (
        ("forebay_input_age_seconds", "Age of the oldest input.", "age"),
        (
            "forebay_oldest_queued_age_seconds",
            "Age of the oldest request not yet delivered.",
            "oldest_queued_age",
        ),
        (
            "forebay_replica_startup_seconds",
            "Mean time from a Triton's start to READY.",
            "startup_time",
        ),
    ):
        yield _seconds(snapshot, name, help_text, field)
    for name, help_text, field in (
        (
            "forebay_poison_requests",
            "Requests set aside after too many deliveries.",
            "poison_count",
        ),
        ("forebay_dead_tasks", "Tasks that became dead letters.", "dead_task_count"),
    ):
        counter = CounterMetricFamily(name, help_text, labels=["deployment"])
        for load in snapshot.deployments:
            counter.add_metric([names.deployment_id(load.deployment)], getattr(load, field))
        yield counter


def _requests(snapshot: Snapshot, name: str, help_text: str, state: str) -> Metric:
    """What a load counts together with tasks, without them."""
    family = GaugeMetricFamily(name, help_text, labels=["deployment"])
    for load in snapshot.deployments:
        if load.HasField(f"{state}_count"):
            count = getattr(load, f"{state}_count") - getattr(load, f"{state}_task_count")
            family.add_metric([names.deployment_id(load.deployment)], count)
    return family


def _seconds(snapshot: Snapshot, name: str, help_text: str, field: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=["deployment"])
    for load in snapshot.deployments:
        if load.HasField(field):
            value_s = getattr(load, field).ToNanoseconds() / 1e9
            family.add_metric([names.deployment_id(load.deployment)], value_s)
    return family


def _by_deployment(snapshot: Snapshot, name: str, help_text: str, field: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=["deployment"])
    for load in snapshot.deployments:
        if load.HasField(field):
            family.add_metric([names.deployment_id(load.deployment)], getattr(load, field))
    return family


def _replica_states(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "forebay_replicas", "Replicas by state.", labels=["deployment", "state"]
    )
    for load in snapshot.deployments:
        for state in _STATES:
            label = ReplicaStatus.State.Name(state).removeprefix("STATE_").lower()
            count = _replica_count(load, label)
            family.add_metric([names.deployment_id(load.deployment), label], count)
    return family


def _replica_count(load: DeploymentLoad, state: str) -> int:
    return int(getattr(load, f"{state}_replica_count"))


def _replica_memory(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "forebay_replica_resident_memory_bytes",
        "Resident memory of all replicas' Tritons.",
        labels=["deployment"],
    )
    used: dict[str, int] = {}
    for node in snapshot.nodes:
        if node.state != Node.STATE_OFFLINE:
            for replica in node.replicas:
                used.setdefault(replica.deployment, 0)
                used[replica.deployment] += replica.resident_memory_bytes
    for deployment, memory in sorted(used.items()):
        family.add_metric([names.deployment_id(deployment)], memory)
    return family


def _nodes(snapshot: Snapshot) -> Iterator[Metric]:
    up = GaugeMetricFamily("forebay_node_up", "Whether the node reports.", labels=["node"])
    slots = GaugeMetricFamily(
        "forebay_node_slots", "Replicas without a GPU the node can run.", labels=["node"]
    )
    gpu = {
        field: GaugeMetricFamily(f"forebay_gpu_{field}", help_text, labels=["node", "gpu"])
        for field, help_text in (
            ("utilization_ratio", "Share of the last sample period in which a kernel ran."),
            ("memory_used_bytes", "GPU memory in use."),
            ("memory_total_bytes", "GPU memory there is."),
        )
    }
    for node in snapshot.nodes:
        name = names.node_id(node.name)
        alive = node.state != Node.STATE_OFFLINE
        up.add_metric([name], float(alive))
        if not alive:
            continue
        slots.add_metric([name], node.slot_count)
        for device in node.gpus:
            for field, family in gpu.items():
                family.add_metric([name, device.uuid], getattr(device, field))
    yield from (up, slots, *gpu.values())


def _resources(snapshot: Snapshot) -> Iterator[Metric]:
    cpus = GaugeMetricFamily("forebay_node_cpus", "CPUs replicas may declare.", labels=["node"])
    memory = GaugeMetricFamily(
        "forebay_node_memory_bytes", "Memory replicas may declare.", labels=["node"]
    )
    custom = GaugeMetricFamily(
        "forebay_node_custom_resources",
        "Other resources replicas may declare.",
        labels=["node", "resource"],
    )
    for node in snapshot.nodes:
        if node.state == Node.STATE_OFFLINE:
            continue
        name = names.node_id(node.name)
        # Zero is an agent's word for not known.
        if node.cpus:
            cpus.add_metric([name], node.cpus)
        if node.memory_bytes:
            memory.add_metric([name], node.memory_bytes)
        for resource, amount in sorted(node.custom.items()):
            custom.add_metric([name, resource], amount)
    yield from (cpus, memory, custom)


def _add_histogram(family: HistogramMetricFamily, deployment: str, total: Sum | None) -> None:
    if total is None:
        return
    seen = total.histogram()
    running = 0
    buckets: list[tuple[str, float]] = []
    for bound_s, count in zip((*seen.bounds_s, float("inf")), seen.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound_s == float("inf") else str(bound_s), running))
    family.add_metric([deployment], buckets=buckets, sum_value=seen.sum_s)
