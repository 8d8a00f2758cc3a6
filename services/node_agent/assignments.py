"""Follows what the autoscaler wants this node to run."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import structlog

from forebay.v1.autoscaler_pb2 import WatchAssignmentsRequest
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from services.node_agent.reconcile import AssignedSet
from services.wire import names
from services.wire.channels import open_channel

log = structlog.get_logger()

RETRY_S = 1.0


async def watch(address: str, node: str) -> AsyncIterator[AssignedSet]:
    """Yields each assigned set as it comes, for ever; a broken stream is opened again.

    Args:
        address: of the autoscaler, as host:port.
        node: id of this node.
    """
    async with open_channel(address) as channel:
        stub = AutoscalerServiceStub(channel)
        while True:
            call = stub.WatchAssignments(WatchAssignmentsRequest(node=names.node_name(node)))
            try:
                async for response in call:
                    yield AssignedSet(
                        tuple(response.assignments), response.revision, response.epoch
                    )
                log.warning("assignments.ended")
            except grpc.aio.AioRpcError as error:
                log.warning("assignments.broken", code=error.code().name, details=error.details())
            finally:
                call.cancel()
            await asyncio.sleep(RETRY_S)
