"""How a deployment is, with a sentence that says why not all of its replicas are ready. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from forebay.v1.deployment_pb2 import DeploymentStatus
from services.autoscaler.gpu_use import warnings_of
from services.autoscaler.rollout import Replica, Spec, Step
from services.autoscaler.view import ReplicaView, State, View

MAX_MESSAGE_CHARACTERS = 2000
MAX_FAILED_NAMED = 5

_NONE: Mapping[str, int] = MappingProxyType({})

LOAD_UNKNOWN = "metrics does not answer, so replicas are left as they are"


def describe(
    spec: Spec,
    step: Step,
    view: View,
    decision_reason: str = "",
    startup_s: float | None = None,
    used_bytes: Mapping[str, int] = _NONE,
    stranded: Sequence[tuple[str, str]] = (),
) -> DeploymentStatus:
    """The status after a step.

    Args:
        spec: what is declared.
        step: what changes.
        view: what is seen.
        decision_reason: why the target is what it is.
        startup_s: how long a replica takes from assigned to ready; None if it is not known yet.
        used_bytes: GPU memory that replicas use, by id, where it is known.
        stranded: replicas of it that run on cordoned GPUs, each with the reason.
    """
    ready = updated = failed = starting = 0
    for replica in step.keep:
        state = replica.state
        if state is State.READY:
            ready += 1
            updated += replica.generation == spec.generation
        elif state is State.FAILED:
            failed += 1
        elif state is State.STARTING or state is State.UNKNOWN:
            starting += 1
    assigned = len(step.keep) + len(step.create)
    status = DeploymentStatus(
        assigned_replica_count=assigned,
        ready_replica_count=ready,
        starting_replica_count=starting + len(step.create),
        draining_replica_count=view.draining_counts.get(spec.deployment, 0),
        failed_replica_count=failed,
        updated_replica_count=updated,
        target_replica_count=step.target,
        unplaced_replica_count=step.unplaced,
        decision_reason=decision_reason,
        max_gpu_memory_used_bytes=max(
            (used_bytes.get(replica.replica_id, 0) for replica in step.keep), default=0
        )
        if used_bytes
        else 0,
    )
    if used_bytes or stranded:
        status.warnings.extend(warnings_of(step.keep, used_bytes, stranded))
    if startup_s is not None:
        status.startup_time.FromNanoseconds(int(startup_s * 1e9))
    if updated != assigned or step.unplaced or step.deferred:
        reasons = _reasons(spec, step, view, updated)
        status.message = "; ".join(reasons)[:MAX_MESSAGE_CHARACTERS]
    return status


def _reasons(spec: Spec, step: Step, view: View, updated: int) -> list[str]:
    replicas = [*step.keep, *step.create]
    reasons = _failed(replicas, view)
    if step.unplaced:
        reasons.append(_no_place(step, view))
    if step.deferred:
        have = "1 replica waits" if step.deferred == 1 else f"{step.deferred} replicas wait"
        reasons.append(f"{have} to be placed, after those of others")
    starting = [r for r in replicas if r.state in (State.STARTING, State.UNKNOWN)]
    if starting:
        reasons.append(_starting(starting, step.target, view))
    old = [r for r in replicas if r.generation != spec.generation]
    if old:
        reasons.append(
            f"generation {spec.generation} replaces generation {old[0].generation}: "
            f"{updated} of {step.target} replicas are replaced"
        )
    return reasons


def _failed(replicas: Sequence[Replica], view: View) -> list[str]:
    failed = [r for r in replicas if r.state is State.FAILED]
    # The current generation first: it is the one that people wait for.
    failed.sort(key=lambda r: (-r.generation, r.replica_id))
    said = [
        f"replica {r.replica_id} on {r.node} failed: {_said(r, view.replicas)}"
        for r in failed[:MAX_FAILED_NAMED]
    ]
    if len(failed) > MAX_FAILED_NAMED:
        said.append(f"{len(failed) - MAX_FAILED_NAMED} more replicas failed")
    return said


def _no_place(step: Step, view: View) -> str:
    one = step.unplaced == 1
    what = "1 replica" if one else f"{step.unplaced} replicas"
    if not view.nodes:
        have = "has" if one else "have"
        return f"{what} {have} no place: there is no node yet; start a node agent"
    if step.never:
        return f"{what} can never fit: {step.never}"
    return f"{what} {'has' if one else 'have'} no place: {step.why}"


def _starting(starting: Sequence[Replica], wanted: int, view: View) -> str:
    detail = next((f" ({said})" for r in starting if (said := _said(r, view.replicas))), "")
    verb = "is" if len(starting) == 1 else "are"
    return f"{len(starting)} of {wanted} replicas {verb} starting{detail}"


def _said(replica: Replica, seen: Mapping[str, ReplicaView]) -> str:
    status = seen.get(replica.replica_id)
    return status.message if status is not None else ""
