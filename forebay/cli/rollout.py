"""Waiting until every replica of a deployment's current generation answers."""

import asyncio

import grpc.aio

from forebay.cli.failure import CliError
from forebay.cli.link import CALL_TIMEOUT_S, Link
from forebay.cli.output import Progress, count_of
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


async def until_ready(
    deployment: Deployment, autoscaler: Link, metrics: Link, timeout_s: float, tell: Progress
) -> Deployment:
    """Waits until as many replicas of the current generation are ready as are wanted.

    Raises:
        CliError: if one of them fails, with Triton's reason; if the time is over, with what they
            are doing instead.
    """
    name = deployment_id(deployment.name)
    service = deployment_service(autoscaler.channel)
    replicas: list[ReplicaStatus] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await autoscaler.call(
                    service.GetDeployment, GetDeploymentRequest(name=deployment.name)
                )
                deployment = answer.deployment
                if deployment.status.updated_replica_count >= deployment.replicas:
                    return deployment
                replicas = await _current_replicas(deployment, metrics)
                _check_none_failed(name, replicas)
                tell(f"{name}: {_told(deployment, replicas)}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CliError(
            f"{name} is not ready after {timeout_s:g} s: {_told(deployment, replicas)}. It goes on "
            f"starting; `forebay status {name}` and `forebay logs {name}` say more."
        ) from None


async def _current_replicas(deployment: Deployment, metrics: Link) -> list[ReplicaStatus]:
    """Replicas of the current generation as nodes report them; none while metrics is away."""
    try:
        answer = await metrics_service(metrics.channel).GetSnapshot(
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
            raise CliError(
                f"replica {replica.replica_id} of {name} failed: {replica.message}\n"
                f"Its log: forebay logs {name} --replica {replica.replica_id}"
            )


def _told(deployment: Deployment, replicas: list[ReplicaStatus]) -> str:
    wanted = count_of(deployment.replicas, "replica")
    ready = f"{deployment.status.updated_replica_count} of {wanted} ready"
    doing = sorted(
        f"{_WORDS[replica.state]}: {replica.message}".removesuffix(": ")
        for replica in replicas
        if replica.state != ReplicaStatus.STATE_READY and replica.state in _WORDS
    )
    return "; ".join([ready, *doing] if doing else [ready, deployment.status.message]).rstrip("; ")
