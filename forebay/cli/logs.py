"""`forebay logs`: what the Tritons of a deployment write."""

import asyncio
import json
import sys

import grpc.aio

from forebay import addresses
from forebay.cli.failure import NOT_FOUND, CliError, raise_for
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, say
from forebay.cli.show import resource_name
from forebay.stubs import metrics_service, node_service
from forebay.v1.metrics_pb2 import GetSnapshotRequest
from forebay.v1.node_pb2 import ReadReplicaLogRequest

LOG_TIMEOUT_S = 30.0


async def run(
    name: str, replica: str | None, follow: bool, tail: int, where: Where, output: Output
) -> None:
    """Prints the logs of every replica of a deployment, or of one.

    Raises:
        CliError: if there is no such replica, or none of the logs can be read.
    """
    wanted = resource_name(name)
    async with link_to(addresses.METRICS, where) as metrics:
        service = metrics_service(metrics.channel)
        answer = await metrics.call(service.GetSnapshot, GetSnapshotRequest())
        ids = [
            status.replica_id
            for node in answer.snapshot.nodes
            for status in node.replicas
            if status.deployment == wanted and replica in (None, status.replica_id)
        ]
        if not ids:
            what = f"{name} has no replica {replica}" if replica else f"{name} has no replica"
            raise CliError(f"{what}. `forebay status {name}` says why.", NOT_FOUND)
        async with asyncio.TaskGroup() as group:
            for replica_id in ids:
                prefix = f"{replica_id} | " if len(ids) > 1 else ""
                request = ReadReplicaLogRequest(
                    replica_id=replica_id, tail_lines=tail, follow=follow
                )
                group.create_task(_print_log(metrics, request, prefix, output))


async def _print_log(
    metrics: Link, request: ReadReplicaLogRequest, prefix: str, output: Output
) -> None:
    timeout_s = None if request.follow else LOG_TIMEOUT_S
    call = node_service(metrics.channel).ReadReplicaLog(request, timeout=timeout_s)
    try:
        async for part in call:
            if part.error:
                say(f"{request.replica_id}: {part.error}")
            for line in part.text.splitlines():
                if output is Output.JSON:
                    line = json.dumps({"replica_id": request.replica_id, "line": line})
                    sys.stdout.write(f"{line}\n")
                else:
                    sys.stdout.write(f"{prefix}{line}\n")
            sys.stdout.flush()
    except grpc.aio.AioRpcError as error:
        raise_for(error, metrics.service, metrics.address)
    finally:
        # grpcio does not end a stream that nobody reads any more.
        call.cancel()
