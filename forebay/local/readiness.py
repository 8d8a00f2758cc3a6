"""Whether something answers yet: one question each, without waiting for a better answer."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forebay.stubs import node_service
from forebay.v1.node_pb2 import ListNodesRequest, Node
from services.runtime import ports
from services.wire.names import NODE_PREFIX

_TIMEOUT_S = 1.0
_PAUSE_S = 0.02


async def until_accepts(address: str) -> None:
    """Waits until something accepts TCP connections at an address."""
    while not await accepts(address):  # noqa: ASYNC110, nobody tells us
        await asyncio.sleep(_PAUSE_S)


async def accepts(address: str) -> bool:
    """Whether something accepts TCP connections at an address."""
    host, port = ports.split(address)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def serves(address: str) -> bool:
    """Whether the gRPC server at an address calls itself healthy."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def active_nodes(metrics: grpc.aio.Channel) -> set[str]:
    """Ids of the nodes that report and are open to placement."""
    try:
        answer = await node_service(metrics).ListNodes(
            ListNodesRequest(page_size=1000), timeout=_TIMEOUT_S
        )
    except grpc.aio.AioRpcError:
        return set()
    return {
        node.name.removeprefix(NODE_PREFIX)
        for node in answer.nodes
        if node.state == Node.STATE_ACTIVE
    }
