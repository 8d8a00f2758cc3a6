"""Metrics of deployments but for their histograms: queues, replicas and attempts. Pure."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forebay.v1.metrics_pb2 import DeploymentLoad, Snapshot
from forebay.v1.node_pb2 import Node, ReplicaStatus
from services.metrics.declared import Declared
from services.wire import names

_STATES = {
    state: ReplicaStatus.State.Name(state).removeprefix("STATE_").lower()
    for state in (
        ReplicaStatus.STATE_STARTING,
        ReplicaStatus.STATE_READY,
        ReplicaStatus.STATE_DRAINING,
        ReplicaStatus.STATE_FAILED,
    )
}

_COUNTS = (
    (
        "forebay_queued_tasks",
        "Tasks stored and not yet delivered.",
        "queued_task_count",
    ),
    (
        "forebay_ongoing_tasks",
        "Tasks delivered and not yet settled.",
        "ongoing_task_count",
    ),
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
)
_DURATIONS = (
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
)
_TOTALS = (
    (
        "forebay_poison_requests",
        "Requests set aside after too many deliveries.",
        "poison_count",
    ),
    ("forebay_dead_tasks", "Tasks that became dead letters.", "dead_task_count"),
)
_DECLARED = (
    (
        "forebay_request_timeout_seconds",
        "What a call without a deadline gets.",
        "request_timeout_s",
    ),
    (
        "forebay_desired_latency_seconds",
        "The smallest desired latency of the deployment's policies.",
        "desired_latency_s",
    ),
    (
        "forebay_replica_gpu_memory_declared_bytes",
        "GPU memory that one replica declares.",
        "gpu_memory_bytes",
    ),
)


def load_metrics(
    snapshot: Snapshot, attempts: Mapping[str, Mapping[str, int]], declared: Mapping[str, Declared]
) -> Iterator[Metric]:
    """All metrics of deployments but for their histograms.

    Args:
        snapshot: what is known of the mesh.
        attempts: those that ended, by id of the deployment and outcome.
        declared: what is declared, by id of the deployment.
    """
    yield from _queues(snapshot)
    yield from _declared(declared)
    yield _replica_states(snapshot)
    yield from _replica_memory(snapshot)
    yield _attempts(attempts)


def _queues(snapshot: Snapshot) -> Iterator[Metric]:
    for state, meaning in (
        ("queued", "stored and not yet delivered"),
        ("ongoing", "delivered and not yet settled"),
    ):
        yield _requests(snapshot, f"forebay_{state}_requests", f"Requests {meaning}.", state)
    for name, help_text, field in _COUNTS:
        family = GaugeMetricFamily(name, help_text, labels=["deployment"])
        for load in snapshot.deployments:
            if load.HasField(field):
                family.add_metric([names.deployment_id(load.deployment)], getattr(load, field))
        yield family
    for name, help_text, field in _DURATIONS:
        family = GaugeMetricFamily(name, help_text, labels=["deployment"])
        for load in snapshot.deployments:
            if load.HasField(field):
                value_s = getattr(load, field).ToNanoseconds() / 1e9
                family.add_metric([names.deployment_id(load.deployment)], value_s)
        yield family
    for name, help_text, field in _TOTALS:
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


def _declared(declared: Mapping[str, Declared]) -> Iterator[Metric]:
    for name, help_text, field in _DECLARED:
        family = GaugeMetricFamily(name, help_text, labels=["deployment"])
        for deployment, said in declared.items():
            value = getattr(said, field)
            if value is not None:
                family.add_metric([deployment], value)
        yield family


def _replica_states(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "forebay_replicas", "Replicas by state.", labels=["deployment", "state"]
    )
    for load in snapshot.deployments:
        deployment = names.deployment_id(load.deployment)
        for label in _STATES.values():
            family.add_metric([deployment, label], _replica_count(load, label))
    return family


def _replica_count(load: DeploymentLoad, state: str) -> int:
    return int(getattr(load, f"{state}_replica_count"))


def _replica_memory(snapshot: Snapshot) -> Iterator[Metric]:
    resident: dict[str, int] = {}
    on_gpus: dict[str, int] = {}
    most: dict[str, int] = {}
    for node in snapshot.nodes:
        if node.state == Node.STATE_OFFLINE:
            continue
        for replica in node.replicas:
            deployment = replica.deployment
            resident[deployment] = resident.get(deployment, 0) + replica.resident_memory_bytes
            used = replica.gpu_memory_used_bytes
            # Zero is an agent's word for not known.
            if used:
                on_gpus[deployment] = on_gpus.get(deployment, 0) + used
                most[deployment] = max(most.get(deployment, 0), used)
    for name, help_text, found in (
        (
            "forebay_replica_resident_memory_bytes",
            "Resident memory of all replicas' Tritons.",
            resident,
        ),
        (
            "forebay_replica_gpu_memory_used_bytes",
            "GPU memory that all replicas hold.",
            on_gpus,
        ),
        (
            "forebay_replica_max_gpu_memory_used_bytes",
            "GPU memory of the replica that holds most.",
            most,
        ),
    ):
        family = GaugeMetricFamily(name, help_text, labels=["deployment"])
        for deployment, memory in sorted(found.items()):
            family.add_metric([names.deployment_id(deployment)], memory)
        yield family


def _attempts(attempts: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(
        "forebay_attempts", "Attempts that ended, by outcome.", labels=["deployment", "outcome"]
    )
    for deployment, counts in attempts.items():
        for outcome, count in sorted(counts.items()):
            family.add_metric([deployment, outcome], count)
    return family
