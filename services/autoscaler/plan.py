"""From what is declared, assigned and reported to what each node must run next. Pure.

The deployments are stepped one after the other, by name; each sees what those before it now hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forebay.v1.autoscaler_pb2 import Assignment, AssignmentSet
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Node as NodeMessage
from forebay.v1.node_pb2 import ReplicaStatus
from services.autoscaler import rollout
from services.autoscaler.placement import Demand, Gpu, Node, Share
from services.autoscaler.rollout import Replica, State, Wanted
from services.wire import names

_CLOSED = {
    NodeMessage.STATE_DRAINING: "it is draining",
    NodeMessage.STATE_OFFLINE: "it does not report",
}
_STATES = {
    ReplicaStatus.STATE_STARTING: State.STARTING,
    ReplicaStatus.STATE_READY: State.READY,
    ReplicaStatus.STATE_DRAINING: State.DRAINING,
    ReplicaStatus.STATE_STOPPED: State.STOPPED,
    ReplicaStatus.STATE_FAILED: State.FAILED,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be next.

    Attributes:
        assignments: by node, for every node that has or had any.
        steps: by deployment, those included that were deleted and still have replicas.
    """

    assignments: Mapping[str, list[Assignment]]
    steps: Mapping[str, rollout.Step]


def plan(
    deployments: Mapping[str, Deployment],
    sets: Mapping[str, AssignmentSet],
    snapshot: Snapshot,
    gone: frozenset[str],
    leaving: Mapping[str, tuple[str, Share]],
    new_id: Callable[[str], str],
) -> Plan:
    """The next assignments of every node.

    Args:
        deployments: what is declared, by id.
        sets: what each node was told last, by id.
        snapshot: what is seen.
        gone: ids of nodes whose replicas must move.
        leaving: deployment and share of what was removed and may still run, by replica id.
        new_id: makes a replica id for a deployment.
    """
    nodes = nodes_of(snapshot)
    before = {a.replica_id: a for held in sets.values() for a in held.assignments}
    replicas = _replicas(sets, reported(snapshot))
    apart = {**_unassigned(snapshot, before), **leaving}
    steps: dict[str, rollout.Step] = {}
    for deployment in sorted({*deployments, *replicas}):
        own = replicas.get(deployment, [])
        others = [share for _, share in apart.values()]
        others += [r.share for d, held in replicas.items() if d != deployment for r in held]
        step = rollout.step(
            wanted_of(deployment, deployments.get(deployment)),
            own,
            nodes,
            gone,
            others,
            any(owner == deployment for owner, _ in apart.values()),
            lambda owner=deployment: new_id(owner),  # type: ignore[misc]
        )
        steps[deployment] = step
        replicas[deployment] = [*step.keep, *step.create]
        apart.update({r.replica_id: (deployment, r.share) for r, _ in step.remove})
    return Plan(
        assignments=_assignments(steps, deployments, before, set(sets)),
        steps=steps,
    )


def nodes_of(snapshot: Snapshot) -> list[Node]:
    """The nodes as placement sees them."""
    return [
        Node(
            name=names.node_id(node.name),
            slots=node.slot_count,
            gpus=tuple(
                Gpu(gpu.uuid, gpu.memory_total_bytes, gpu.memory_used_bytes) for gpu in node.gpus
            ),
            closed=_CLOSED.get(node.state, ""),
        )
        for node in snapshot.nodes
    ]


def reported(snapshot: Snapshot) -> dict[str, ReplicaStatus]:
    """Every replica on a node that reports, by id."""
    return {
        replica.replica_id: replica
        for node in snapshot.nodes
        if node.state != NodeMessage.STATE_OFFLINE
        for replica in node.replicas
    }


def wanted_of(deployment_id: str, deployment: Deployment | None) -> Wanted:
    """What a deployment asks for: nothing, if it was deleted."""
    if deployment is None:
        return Wanted(deployment_id, 0, 0, Demand())
    resources = deployment.resources
    return Wanted(
        deployment_id,
        deployment.replicas,
        deployment.generation,
        Demand(resources.gpus, resources.gpu_memory_bytes),
    )


def _replicas(
    sets: Mapping[str, AssignmentSet], seen: Mapping[str, ReplicaStatus]
) -> dict[str, list[Replica]]:
    found: dict[str, list[Replica]] = {}
    for node, held in sets.items():
        for assignment in held.assignments:
            status = seen.get(assignment.replica_id)
            state = _STATES.get(status.state, State.UNKNOWN) if status else State.UNKNOWN
            resources = assignment.resources
            demand = Demand(resources.gpus, resources.gpu_memory_bytes)
            share = Share(node, tuple(assignment.gpu_uuids), demand)
            replica = Replica(assignment.replica_id, assignment.generation, share, state)
            found.setdefault(names.deployment_id(assignment.deployment), []).append(replica)
    return found


def _unassigned(
    snapshot: Snapshot, assigned: Mapping[str, Assignment]
) -> dict[str, tuple[str, Share]]:
    """Replicas that run although nothing assigns them any more: they hold their share still."""
    return {
        replica.replica_id: (
            names.deployment_id(replica.deployment),
            Share(names.node_id(node.name), tuple(replica.gpu_uuids), Demand(replica.gpus)),
        )
        for node in snapshot.nodes
        for replica in node.replicas
        if node.state != NodeMessage.STATE_OFFLINE
        and replica.replica_id not in assigned
        and replica.state != ReplicaStatus.STATE_STOPPED
    }


def _assignments(
    steps: Mapping[str, rollout.Step],
    deployments: Mapping[str, Deployment],
    before: Mapping[str, Assignment],
    nodes: set[str],
) -> dict[str, list[Assignment]]:
    result: dict[str, list[Assignment]] = {node: [] for node in nodes}
    for deployment_id, step in steps.items():
        deployment = deployments.get(deployment_id)
        for replica in step.keep:
            kept = Assignment()
            kept.CopyFrom(before[replica.replica_id])
            if deployment is not None:
                # The one thing that changes without a new generation.
                kept.request_timeout.CopyFrom(deployment.request_timeout)
            result[replica.node].append(kept)
        for replica in step.create:
            assert deployment is not None, "nothing is created for what was deleted"
            result.setdefault(replica.node, []).append(_assignment(replica, deployment))
    for held in result.values():
        held.sort(key=lambda assignment: assignment.replica_id)
    return result


def _assignment(replica: Replica, deployment: Deployment) -> Assignment:
    return Assignment(
        replica_id=replica.replica_id,
        deployment=deployment.name,
        generation=deployment.generation,
        model_digest=deployment.model_digest,
        gpu_uuids=replica.share.gpu_uuids,
        resources=deployment.resources,
        max_ongoing_requests=deployment.max_ongoing_requests,
        request_timeout=deployment.request_timeout,
        canary=deployment.canary,
    )
