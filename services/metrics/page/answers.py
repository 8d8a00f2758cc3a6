"""What the page is told, as values for JSON. Pure.

Names, numbers and sentences of decisions; nothing of what replicas say or were given: logs,
environments and bodies stay where they are.
"""

from collections.abc import Iterable
from typing import Any

from forebay.v1.deployment_pb2 import DeploymentStatus
from forebay.v1.node_pb2 import Gpu, Node, ReplicaRuntime, ReplicaStatus
from services.metrics import gpu_figures
from services.metrics.page import points, trouble
from services.metrics.page.history import Series
from services.metrics.page.recent_decisions import Decision
from services.metrics.page.sampler import Look
from services.metrics.page.trouble import Level, Trouble
from services.wire import names

MAX_LISTED = 500
"""Deployments, and nodes, in one answer; those with trouble come first."""

MAX_REPLICAS = 200
MAX_GPUS = 16

Json = dict[str, Any]

_NOT_THEIR_FAULT = frozenset({"outcome_ok", "outcome_cancelled", "outcome_invalid_argument"})


def deployments(look: Look, failing: dict[str, float | None]) -> list[Json]:
    """All deployments, those with most trouble first, then those with most to do.

    Args:
        look: what was seen last.
        failing: share of recent attempts that failed, by deployment's id.
    """
    rows = []
    for name, load in look.loads.items():
        status = look.statuses.get(name)
        values = points.of_deployment(load, status)
        values["redelivered"] = load.redelivered_count
        values["dead_tasks"] = load.dead_task_count
        values["poison"] = load.poison_count
        found = trouble.of_deployment(values, status, failing.get(name))
        rows.append({"name": name, **values, **_trouble(found)})
    rows.sort(key=_worst_first)
    return rows


def nodes(look: Look) -> list[Json]:
    """All nodes, those with trouble first."""
    rows = [node(name, seen) for name, seen in look.nodes.items()]
    rows.sort(key=lambda row: (-row["level"], row["name"]))
    return rows


def node(name: str, seen: Node) -> Json:
    """One node in numbers."""
    up = seen.state != Node.STATE_OFFLINE
    gpus = list(seen.gpus)
    busy = gpu_figures.utilization_ratios(gpus)
    used_bytes, total_bytes = gpu_figures.memory_bytes(gpus)
    return {
        "name": name,
        "state": Node.State.Name(seen.state).removeprefix("STATE_").lower(),
        "runtime": _runtime(seen),
        "slots": seen.slot_count,
        "replicas": len(seen.replicas) if up else None,
        "gpus": len(gpus),
        "gpu_utilization_ratio": sum(busy) / len(busy) if busy and up else None,
        "gpu_memory_used_bytes": used_bytes if up else None,
        "gpu_memory_total_bytes": total_bytes,
        **_trouble(trouble.of_node(seen)),
    }


def gpus(name: str, seen: Node, uuids: Iterable[str] | None = None) -> list[Json]:
    """GPUs of a node.

    Args:
        name: the node's id.
        seen: the node.
        uuids: which; None for all.
    """
    wanted = None if uuids is None else set(uuids)
    return [
        {
            "node": name,
            "uuid": gpu.uuid,
            "product": gpu.product_name,
            "memory_total_bytes": gpu.memory_total_bytes,
            "health": Gpu.Health.Name(gpu.health).removeprefix("HEALTH_").lower(),
            "health_message": gpu.health_message,
            "now": points.of_gpu(gpu) if seen.state != Node.STATE_OFFLINE else {},
        }
        for gpu in seen.gpus
        if wanted is None or gpu.uuid in wanted
    ]


def replicas(look: Look, deployment: str) -> list[Json]:
    """Replicas of a deployment, at most MAX_REPLICAS."""
    wanted_name = names.deployment_name(deployment)
    rows: list[Json] = []
    for name, seen in look.nodes.items():
        if seen.state == Node.STATE_OFFLINE:
            continue
        rows += [_replica(name, r) for r in seen.replicas if r.deployment == wanted_name]
    rows.sort(key=lambda row: row["replica"])
    return rows[:MAX_REPLICAS]


def history(series: Series) -> Json:
    """A history's part."""
    return {
        "first_tick": series.ticks[0],
        "next_tick": series.ticks[1],
        "times_s": series.times_s,
        "values": series.values,
    }


def decisions(found: Iterable[Decision]) -> list[Json]:
    """Scale decisions."""
    return [
        {
            "number": decision.number,
            "deployment": decision.deployment,
            "time_s": round(decision.decide_s, 3),
            "before": decision.target_before,
            "after": decision.target_after,
            "applied": decision.applied,
            "rule": decision.rule,
            "reason": decision.reason,
        }
        for decision in found
    ]


def wanted(status: DeploymentStatus | None) -> Json:
    """What the autoscaler wants, and why."""
    if status is None:
        return {"target": None, "assigned": None, "reason": ""}
    return {
        "target": status.target_replica_count,
        "assigned": status.assigned_replica_count,
        "reason": status.decision_reason,
    }


def failing_ratio(series: Series) -> float | None:
    """Share of the attempts of a part of a history that failed; None if none ended.

    Callers who cancelled or sent what the model does not take are not the mesh's trouble.
    """
    ended = failed = 0.0
    for name, values in series.values.items():
        if name.startswith("outcome_"):
            rate = sum(value for value in values if value is not None)
            ended += rate
            if name not in _NOT_THEIR_FAULT:
                failed += rate
    return failed / ended if ended else None


def _replica(node_id: str, replica: ReplicaStatus) -> Json:
    return {
        "replica": replica.replica_id,
        "node": node_id,
        "state": ReplicaStatus.State.Name(replica.state).removeprefix("STATE_").lower(),
        "generation": replica.generation,
        "ongoing": replica.ongoing_count,
        "slots": replica.max_ongoing_requests,
        "starts": replica.start_count,
        "startup_s": _startup_s(replica),
        "resident_memory_bytes": replica.resident_memory_bytes or None,
        "gpu_memory_used_bytes": replica.gpu_memory_used_bytes or None,
    }


def _startup_s(replica: ReplicaStatus) -> float | None:
    if not replica.HasField("startup_time"):
        return None
    return round(float(replica.startup_time.ToNanoseconds()) / 1e9, 2)


def _runtime(seen: Node) -> str:
    if seen.runtime == ReplicaRuntime.REPLICA_RUNTIME_UNSPECIFIED:
        return ""
    name: str = ReplicaRuntime.Name(seen.runtime)
    return name.removeprefix("REPLICA_RUNTIME_").lower()


def _trouble(found: list[Trouble]) -> Json:
    return {
        "level": int(max((one.level for one in found), default=Level.FINE)),
        "trouble": [one.text for one in found],
    }


def _worst_first(row: Json) -> tuple[float, float, str]:
    busy = (row["queued"] or 0) * 1000 + (row["ongoing"] or 0) + (row["ready"] or 0)
    return -row["level"], -busy, row["name"]
