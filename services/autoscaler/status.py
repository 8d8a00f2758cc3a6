"""How a deployment is, with a sentence that says why not all of its replicas are ready. Pure."""

from collections.abc import Mapping, Sequence

from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from forebay.v1.node_pb2 import ReplicaStatus
from services.autoscaler.placement import Refusal
from services.autoscaler.rollout import Replica, State, Step

MAX_MESSAGE_CHARACTERS = 2000
MAX_NODES_NAMED = 5

LOAD_UNKNOWN = "metrics does not answer, so replicas are left as they are"


def describe(
    deployment: Deployment,
    step: Step,
    seen: Mapping[str, ReplicaStatus],
    node_count: int,
) -> DeploymentStatus:
    """The status after a step.

    Args:
        deployment: what is declared.
        step: what was decided.
        seen: all replicas on nodes that report, by id.
        node_count: how many nodes are known.
    """
    replicas = [*step.keep, *step.create]
    ready = [r for r in replicas if r.state is State.READY]
    own = [status for status in seen.values() if status.deployment == deployment.name]
    status = DeploymentStatus(
        assigned_replica_count=len(replicas),
        ready_replica_count=len(ready),
        starting_replica_count=_count(replicas, State.STARTING, State.UNKNOWN),
        draining_replica_count=sum(1 for s in own if s.state == ReplicaStatus.STATE_DRAINING),
        failed_replica_count=_count(replicas, State.FAILED),
        updated_replica_count=sum(1 for r in ready if r.generation == deployment.generation),
    )
    reasons = _reasons(deployment, step, replicas, seen, node_count)
    status.message = "; ".join(reasons)[:MAX_MESSAGE_CHARACTERS]
    return status


def _reasons(
    deployment: Deployment,
    step: Step,
    replicas: Sequence[Replica],
    seen: Mapping[str, ReplicaStatus],
    node_count: int,
) -> list[str]:
    reasons: list[str] = []
    # The current generation first: it is the one that people wait for.
    for replica in sorted(replicas, key=lambda r: (-r.generation, r.replica_id)):
        if replica.state is State.FAILED:
            said = seen[replica.replica_id].message
            reasons.append(f"replica {replica.replica_id} on {replica.node} failed: {said}")
    if step.unplaced:
        reasons.append(_no_place(step, node_count))
    starting = [r for r in replicas if r.state in (State.STARTING, State.UNKNOWN)]
    if starting:
        reasons.append(_starting(starting, deployment.replicas, seen))
    old = [r for r in replicas if r.generation != deployment.generation]
    if old:
        current = len([r for r in replicas if r.state is State.READY]) - len(
            [r for r in old if r.state is State.READY]
        )
        reasons.append(
            f"generation {deployment.generation} replaces generation {old[0].generation}: "
            f"{current} of {deployment.replicas} replicas are replaced"
        )
    return reasons


def _no_place(step: Step, node_count: int) -> str:
    what = "1 replica has" if step.unplaced == 1 else f"{step.unplaced} replicas have"
    if node_count == 0:
        return f"{what} no place: there is no node yet; start a node agent"
    return f"{what} no place: {_refusals(step.refusals)}"


def _refusals(refusals: Sequence[Refusal]) -> str:
    named = ", ".join(f"{r.node}: {r.reason}" for r in refusals[:MAX_NODES_NAMED])
    more = len(refusals) - MAX_NODES_NAMED
    return f"{named}, and {more} more nodes" if more > 0 else named


def _starting(starting: Sequence[Replica], wanted: int, seen: Mapping[str, ReplicaStatus]) -> str:
    said = [seen[r.replica_id].message for r in starting if r.replica_id in seen]
    detail = next((f" ({words})" for words in said if words), "")
    verb = "is" if len(starting) == 1 else "are"
    return f"{len(starting)} of {wanted} replicas {verb} starting{detail}"


def _count(replicas: Sequence[Replica], *states: State) -> int:
    return sum(1 for replica in replicas if replica.state in states)
