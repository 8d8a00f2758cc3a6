"""Why tasks wait: what the router says of a deployment of which no replica is ready.

A task waits for as long as its time to live, a day by default. Whoever waits for one of a deployment
that cannot start is told so, in the log and in the error when the time is over.
"""  # noqa: E501

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

log = logging.getLogger("forebay")

LOOK_S = 10.0
"""Pause before each look. Most replicas of a deployment at zero are ready before the first."""

MAX_TOLD = 8
"""Reasons that one wait tells; each is told once."""

_ANSWER_S = 2.0
_READY = "READY"


async def reason(channel: grpc.aio.Channel, deployment: str) -> str:
    """Why no replica of a deployment is ready; empty if one is, none should be, or nobody knows.

    Args:
        channel: to the router.
        deployment: its id.
    """
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    try:
        index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=_ANSWER_S)
    except grpc.RpcError:
        return ""
    return next(
        (
            str(model.reason)
            for model in index.models
            if model.name == deployment and model.state != _READY
        ),
        "",
    )


async def tell(
    channel: grpc.aio.Channel,
    deployment: str,
    what: str,
    waits: Callable[[], bool] = lambda: True,
) -> None:
    """Logs why something waits, each reason once; ends when cancelled, or after MAX_TOLD reasons.

    Args:
        channel: to the router.
        deployment: its id.
        what: what waits, for the message.
        waits: whether it does at the moment.
    """
    told: set[str] = set()
    while len(told) < MAX_TOLD:
        await asyncio.sleep(LOOK_S)
        found = await reason(channel, deployment) if waits() else ""
        if found and found not in told:
            told.add(found)
            log.warning("%s waits: no replica of %s is ready: %s", what, deployment, found)


@contextlib.asynccontextmanager
async def told(channel: grpc.aio.Channel, deployment: str, what: str) -> AsyncIterator[None]:
    """Within the block, `tell` runs."""
    telling = asyncio.create_task(tell(channel, deployment, what), name="forebay-why-waiting")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])
