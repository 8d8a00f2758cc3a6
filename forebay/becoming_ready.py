"""Waiting until enough replicas of a deployment's current generation answer."""

import asyncio

import grpc.aio

from forebay.cli.output import count_of
from forebay.cli.scaling_words import target_of
from forebay.deploying import CALL_TIMEOUT_S, Told
from forebay.stubs import deployment_service, metrics_service
from forebay.v1.deployment_pb2 import Deployment, GetDeploymentRequest
from forebay.v1.metrics_pb2 import GetSnapshotRequest
from forebay.v1.node_pb2 import ReplicaStatus
from services.wire.names import deployment_id

_POLL_S = 0.25
_WORDS = {
    ReplicaStatus.STATE_STARTING: "starting",
    ReplicaStatus.STATE_READY: "ready",
    ReplicaStatus.STATE_DRAINING: "draining",
    ReplicaStatus.STATE_FAILED: "failed",
}


class NotReadyError(Exception):
    """A replica failed or the time is over; the text says why and where to look."""


def wanted_replicas(deployment: Deployment, is_new: bool = False) -> int:
    """How many replicas must answer before a deployment serves as it should.

    All of them if their number is fixed or pinned. With a scaling policy those that are its target
    and have a place, and never fewer than `min_replicas`: with none at zero.

    Args:
        deployment: with its status.
        is_new: whether it has just been created, so that its status may not know yet of the
            replicas it begins with.
    """
    target = target_of(deployment)
    if deployment.HasField("pinned_replicas") or not deployment.HasField("scaling"):
        return target
    scaling = deployment.scaling
    placed = target - deployment.status.unplaced_replica_count
    wanted = max(int(scaling.min_replicas), placed, min(1, target))
    if is_new and scaling.HasField("initial_replicas") and not target:
        wanted = max(wanted, int(scaling.initial_replicas))
    return wanted


async def until_ready(
    deployment: Deployment,
    autoscaler: grpc.aio.Channel,
    metrics: grpc.aio.Channel,
    timeout_s: float,
    tell: Told,
    is_new: bool = False,
) -> Deployment:
    """Waits until as many replicas of the current generation are ready as are wanted.

    Args:
        deployment: as declared.
        autoscaler: channel to who says how it is.
        metrics: channel to who says how its replicas are.
        timeout_s: how long to wait, in seconds.
        tell: told what is going on.
        is_new: whether the deployment has just been created.

    Raises:
        NotReadyError: if one of them fails, with Triton's reason; if the time is over, with what
            they are doing instead.
        grpc.aio.AioRpcError: if the autoscaler does not answer.
    """
    name = deployment_id(deployment.name)
    service = deployment_service(autoscaler)
    replicas: list[ReplicaStatus] = []
    wanted = wanted_replicas(deployment, is_new)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await service.GetDeployment(
                    GetDeploymentRequest(name=deployment.name), timeout=CALL_TIMEOUT_S
                )
                deployment = answer.deployment
                wanted = wanted_replicas(deployment, is_new)
                if deployment.status.updated_replica_count >= wanted:
                    return deployment
                replicas = await _current_replicas(deployment, metrics)
                _check_none_failed(name, replicas)
                tell(f"{name}: {_told(deployment, wanted, replicas)}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        told = _told(deployment, wanted, replicas)
        raise NotReadyError(
            f"{name} is not ready after {timeout_s:g} s: {told}. It goes on "
            f"starting; `forebay status {name}` and `forebay logs {name}` say more."
        ) from None


async def _current_replicas(
    deployment: Deployment, metrics: grpc.aio.Channel
) -> list[ReplicaStatus]:
    """Replicas of the current generation as nodes report them; none while metrics is away."""
    try:
        answer = await metrics_service(metrics).GetSnapshot(
            GetSnapshotRequest(), timeout=CALL_TIMEOUT_S
        )
    except grpc.aio.AioRpcError:
        return []
    return [
        replica
        for node in answer.snapshot.nodes
        for replica in node.replicas
        if replica.deployment == deployment.name and replica.generation == deployment.generation
    ]


def _check_none_failed(name: str, replicas: list[ReplicaStatus]) -> None:
    for replica in replicas:
        if replica.state == ReplicaStatus.STATE_FAILED:
            raise NotReadyError(
                f"replica {replica.replica_id} of {name} failed: {replica.message}\n"
                f"Its log: forebay logs {name} --replica {replica.replica_id}"
            )


def _told(deployment: Deployment, wanted: int, replicas: list[ReplicaStatus]) -> str:
    ready = f"{deployment.status.updated_replica_count} of {count_of(wanted, 'replica')} ready"
    doing = sorted(
        f"{_WORDS[replica.state]}: {replica.message}".removesuffix(": ")
        for replica in replicas
        if replica.state != ReplicaStatus.STATE_READY and replica.state in _WORDS
    )
    return "; ".join([ready, *doing] if doing else [ready, deployment.status.message]).rstrip("; ")
