"""Deployments and assignments as they are kept, and as decisions use them. Pure.

The only place where the two meet: decisions know no protos.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from forebay.v1.autoscaler_pb2 import Assignment, AssignmentSet
from forebay.v1.deployment_pb2 import Deployment, ReplicaResources, VolumeMount
from services.autoscaler.capacity import Demand, Share
from services.autoscaler.placement import Strategy
from services.autoscaler.plan import NodeChange
from services.autoscaler.rollout import Replica, Spec
from services.autoscaler.roster import Assigned
from services.wire import names


class Origin(Protocol):
    """The scale decision that a replica comes from."""

    @property
    def name(self) -> str:
        """Its resource name; empty if it is not known."""
        ...

    @property
    def traceparent(self) -> str:
        """W3C context of its span; empty if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class _NoOrigin:
    name: str = ""
    traceparent: str = ""


NO_ORIGIN: Origin = _NoOrigin()


def demand_of(resources: ReplicaResources, volumes: Iterable[VolumeMount] = ()) -> Demand:
    """What one replica needs."""
    return Demand(
        resources.gpus,
        resources.gpu_memory_bytes,
        resources.accelerator_type,
        resources.cpus,
        resources.memory_bytes,
        tuple(sorted(resources.custom.items())),
        tuple(sorted((volume.name, volume.read_only) for volume in volumes)),
    )


def resources_of(demand: Demand) -> ReplicaResources:
    """What one replica needs, as a message; without `workers`, which needs nothing, and volumes."""
    return ReplicaResources(
        gpus=demand.gpus,
        gpu_memory_bytes=demand.gpu_memory_bytes,
        accelerator_type=demand.accelerator_type,
        cpus=demand.cpus,
        memory_bytes=demand.memory_bytes,
        custom=dict(demand.custom),
    )


def spec_of(deployment: Deployment) -> Spec:
    """What a deployment asks for. To be made once for each change of it."""
    spread = deployment.placement == Deployment.PLACEMENT_SPREAD
    return Spec(
        names.deployment_id(deployment.name),
        deployment.generation,
        demand_of(deployment.resources, deployment.volumes),
        Strategy.SPREAD if spread else Strategy.COMPACT,
        deployment.request_timeout.ToNanoseconds() / 1e9,
    )


def share_of(node: str, assignment: Assignment) -> Share:
    """What an assignment holds of its node."""
    demand = demand_of(assignment.resources, assignment.volumes)
    return Share(node, tuple(assignment.gpu_uuids), demand)


def assigned_of(node: str, held: AssignmentSet) -> list[Assigned]:
    """What a node was told. To be made once for each change of it."""
    return [
        Assigned(
            assignment.replica_id,
            names.deployment_id(assignment.deployment),
            assignment.generation,
            share_of(node, assignment),
            assignment.request_timeout.ToNanoseconds() / 1e9,
        )
        for assignment in held.assignments
    ]


def next_assignments(
    before: AssignmentSet | None,
    change: NodeChange,
    deployments: Mapping[str, Deployment],
    origin_of: Callable[[str], Origin] = lambda _: NO_ORIGIN,
) -> list[Assignment]:
    """What a node must run after a change, by replica id.

    Args:
        before: what it was told last; None if it was told nothing yet.
        change: what the plan changes on it.
        deployments: what is declared, by id.
        origin_of: the decision that new replicas of a deployment come from, by its id. A replica
            keeps its own for life.
    """
    result = []
    for assignment in before.assignments if before is not None else ():
        if assignment.replica_id in change.remove:
            continue
        kept = Assignment()
        kept.CopyFrom(assignment)
        deployment = deployments.get(names.deployment_id(assignment.deployment))
        if deployment is not None:
            # The one thing that changes without a new generation.
            kept.request_timeout.CopyFrom(deployment.request_timeout)
        result.append(kept)
    result += [
        _assignment(replica, deployments[owner], origin_of(owner))
        for owner, replica in change.create
    ]
    return sorted(result, key=lambda assignment: assignment.replica_id)


def _assignment(replica: Replica, deployment: Deployment, origin: Origin) -> Assignment:
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
        environment=deployment.environment,
        volumes=deployment.volumes,
        image=deployment.image,
        scale_decision=origin.name,
        traceparent=origin.traceparent,
    )
