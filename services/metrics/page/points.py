"""What one instant of a history holds of the mesh, a deployment and a GPU. Pure.

A value that is not known is None. A sum over deployments of which some are not known is said to be
so: `queued` is known only if it is of all, `queued_at_least` is the sum of those that are.
"""

from collections.abc import Iterable, Mapping

from forebay.v1.deployment_pb2 import DeploymentStatus
from forebay.v1.metrics_pb2 import DeploymentLoad, LatencyQuantiles, Snapshot
from forebay.v1.node_pb2 import Gpu, Node
from services.metrics import gpu_figures

Values = dict[str, float | None]

_LOAD = {
    "queued": "queued_count",
    "ongoing": "ongoing_count",
    "queued_tasks": "queued_task_count",
    "ongoing_tasks": "ongoing_task_count",
    "arrivals_per_s": "arrivals_per_second",
}
_REPLICAS = {
    "ready": "ready_replica_count",
    "starting": "starting_replica_count",
    "draining": "draining_replica_count",
    "failed": "failed_replica_count",
}
_SUMS = ("queued", "ongoing", "arrivals_per_s")


def of_deployment(load: DeploymentLoad, status: DeploymentStatus | None) -> Values:
    """What is known of a deployment's load, and of what the autoscaler wants of it."""
    values: Values = {
        name: getattr(load, field) if load.HasField(field) else None
        for name, field in _LOAD.items()
    }
    values.update({name: getattr(load, field) for name, field in _REPLICAS.items()})
    for name in ("queue_wait", "service_time"):
        values |= _quantiles(name, load, name)
    if load.HasField("oldest_queued_age"):
        values["oldest_queued_age_s"] = load.oldest_queued_age.ToNanoseconds() / 1e9
    values["target"] = status.target_replica_count if status else None
    values["assigned"] = status.assigned_replica_count if status else None
    return values


def in_use(load: DeploymentLoad, status: DeploymentStatus | None) -> bool:
    """Whether anything happens there, or is meant to; what is not known counts as nothing."""
    if status is not None and (status.target_replica_count or status.assigned_replica_count):
        return True
    return bool(
        load.queued_count
        or load.ongoing_count
        or load.ready_replica_count
        or load.starting_replica_count
        or load.draining_replica_count
        or load.failed_replica_count
    )


def of_memory(nodes: Iterable[Node]) -> dict[str, Values]:
    """Memory that replicas hold, by deployment's resource name; absent where it is not known."""
    found: dict[str, Values] = {}
    for node in nodes:
        if node.state == Node.STATE_OFFLINE:
            continue
        for replica in node.replicas:
            for name in ("resident_memory_bytes", "gpu_memory_used_bytes"):
                # 0 of these is not known.
                if held := getattr(replica, name):
                    values = found.setdefault(replica.deployment, {})
                    values[name] = (values.get(name) or 0) + held
    return found


def of_mesh(snapshot: Snapshot, statuses: Iterable[DeploymentStatus]) -> Values:
    """Sums over the mesh."""
    sums = dict.fromkeys(_SUMS, 0.0)
    known = dict.fromkeys(_SUMS, 0)
    replicas = dict.fromkeys(_REPLICAS, 0)
    for load in snapshot.deployments:
        for name in _SUMS:
            field = _LOAD[name]
            if load.HasField(field):
                sums[name] += getattr(load, field)
                known[name] += 1
        for name, field in _REPLICAS.items():
            replicas[name] += getattr(load, field)
    all_count = len(snapshot.deployments)
    values: Values = {name: float(count) for name, count in replicas.items()}
    for name in _SUMS:
        values[name] = sums[name] if known[name] == all_count else None
        if 0 < known[name] < all_count:
            values[f"{name}_at_least"] = sums[name]
    wanted = list(statuses)
    values["target"] = sum(s.target_replica_count for s in wanted) if wanted else None
    values["assigned"] = sum(s.assigned_replica_count for s in wanted) if wanted else None
    up = [node for node in snapshot.nodes if node.state != Node.STATE_OFFLINE]
    values["nodes_up"] = len(up)
    values["nodes_offline"] = len(snapshot.nodes) - len(up)
    return values | _gpus([gpu for node in up for gpu in node.gpus])


def of_gpu(gpu: Gpu) -> Values:
    """One GPU."""
    return {
        "utilization_ratio": gpu_figures.utilization_ratio(gpu),
        "memory_used_bytes": gpu_figures.memory_used_bytes(gpu),
        "temperature_celsius": gpu_figures.temperature_celsius(gpu),
        "power_watts": gpu_figures.power_watts(gpu),
    }


def rates(
    before: Mapping[str, int] | None, now: Mapping[str, int] | None, passed_s: float
) -> Values:
    """Attempts that ended per second by outcome, from two states of growing counts.

    Nothing is known if either is not, if no time has passed, or if a count went down.
    """
    if before is None or now is None or passed_s <= 0:
        return {}
    grown = {outcome: count - before.get(outcome, 0) for outcome, count in now.items()}
    if min(grown.values(), default=0) < 0:
        return {}
    return {f"outcome_{outcome}": count / passed_s for outcome, count in grown.items()}


def _gpus(gpus: list[Gpu]) -> Values:
    if not gpus:
        return {}
    busy = gpu_figures.utilization_ratios(gpus)
    used_bytes, total_bytes = gpu_figures.memory_bytes(gpus)
    return {
        "gpu_utilization_mean_ratio": sum(busy) / len(busy) if busy else None,
        "gpu_utilization_max_ratio": max(busy, default=None),
        "gpu_memory_used_bytes": used_bytes,
        "gpu_memory_total_bytes": total_bytes,
    }


def _quantiles(prefix: str, load: DeploymentLoad, field: str) -> Values:
    if not load.HasField(field):
        return {}
    known: LatencyQuantiles = getattr(load, field)
    return {
        f"{prefix}_p50_s": known.p50.ToNanoseconds() / 1e9,
        f"{prefix}_p95_s": known.p95.ToNanoseconds() / 1e9,
        f"{prefix}_p99_s": known.p99.ToNanoseconds() / 1e9,
    }
