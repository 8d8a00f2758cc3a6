"""What goes on beside a READY replica: describing its model, letting go of dead shared memory."""

import asyncio
from collections.abc import Mapping

import nats.errors
import nats.js.errors
import structlog

from services.node_agent.shared_memory import has_object
from services.node_agent.triton.triton_client import TritonClient, TritonError
from services.wire import streams
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

RETRY_S = 1.0
LOOK_INTERVAL_S = 10.0


async def describe(link: NatsLink, deployment: str, description: Mapping[str, bytes]) -> None:
    """Lets routers answer ModelConfig and ModelMetadata without asking a Triton.

    Args:
        link: to NATS; tried until it takes the description.
        deployment: id of the deployment.
        description: `config` and `metadata`, as Triton gave them.
    """
    while True:
        try:
            bucket = await streams.metadata_bucket(link.jetstream)
            for what, described in description.items():
                await bucket.put(f"{what}.{deployment}", described)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            log.info("replica.not_described", reason=str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_S)
        else:
            return


async def forget_dead_regions(client: TritonClient) -> None:
    """Has Triton let go of shared memory whose router is gone, which would stay allocated."""
    while True:
        await asyncio.sleep(LOOK_INTERVAL_S)
        for name in client.regions():
            if not has_object(name):
                try:
                    await client.forget_region(name)
                except TritonError as error:
                    log.info("region.not_forgotten", name=name, error=error.message)
