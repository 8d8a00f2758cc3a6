"""Each deployment's consumer in JetStream: there while the deployment is, gone with it.

Tasks are not lost with it: the sweeper ends those that wait, and says why.

The stream of requests is in memory. After a restart of nats-server it is gone with all consumers,
so they are made sure of on each connection, and again every RECHECK_S in case anything else took
them away.
"""

import asyncio
from functools import partial

import nats.errors
import structlog

from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

CHECK_S = 1.0
RECHECK_S = 30.0


class Consumers:
    """Makes sure of consumers and clears away after deleted deployments."""

    def __init__(self, link: NatsLink, deployments: KvMirror, ack_wait_s: float) -> None:
        self._link = link
        self._deployments = deployments
        self._ack_wait_s = ack_wait_s
        self._ensured: set[str] = set()
        self._doomed: set[str] = set()

    async def ensure_all(self) -> None:
        """Makes sure of every declared deployment's consumer; run on each connection."""
        self._ensured.clear()
        await streams.ensure_requests(self._link.jetstream)
        await self._ensure_missing()
        # Left behind by an autoscaler that ended in the middle of a deletion.
        there = await streams.request_consumers(self._link.jetstream)
        self._doomed |= there - self._deployments.entries("spec.").keys()

    async def ensure(self, deployment: str) -> None:
        """Makes sure of one deployment's consumer."""
        self._doomed.discard(deployment)
        await streams.ensure_request_consumer(self._link.jetstream, deployment, self._ack_wait_s)
        self._ensured.add(deployment)

    async def clear_away(self, deployment: str) -> None:
        """Removes what a deleted deployment leaves: its consumer, requests, metadata.

        What cannot be done now is tried again until it is.
        """
        self._doomed.add(deployment)
        self._ensured.discard(deployment)
        await self._clear(deployment)

    async def run(self) -> None:
        """Repairs what is missing, for ever."""
        loop = asyncio.get_running_loop()
        recheck_s = loop.time() + RECHECK_S
        while True:
            await asyncio.sleep(CHECK_S)
            if not self._link.connected:
                continue
            if loop.time() >= recheck_s:
                recheck_s = loop.time() + RECHECK_S
                self._ensured.clear()
            try:
                await self._ensure_missing()
                for deployment in list(self._doomed):
                    await self._clear(deployment)
            except (nats.errors.Error, TimeoutError) as error:
                log.warning("consumers.failed", error=str(error) or type(error).__name__)

    async def _ensure_missing(self) -> None:
        declared = self._deployments.entries("spec.").keys()
        for deployment in declared - self._ensured:
            await self.ensure(deployment)

    async def _clear(self, deployment: str) -> None:
        js = self._link.jetstream
        steps = (
            partial(streams.remove_request_consumer, js, deployment),
            partial(self._remove_metadata, deployment),
        )
        for step in steps:
            if self._deployments.get(f"spec.{deployment}") is not None:
                # Created again in the meantime.
                self._doomed.discard(deployment)
                return
            await step()
        self._doomed.discard(deployment)
        log.info("deployment.cleared_away", deployment=deployment)

    async def _remove_metadata(self, deployment: str) -> None:
        metadata = await streams.metadata_bucket(self._link.jetstream)
        for key in (f"metadata.{deployment}", f"config.{deployment}"):
            await metadata.delete(key)
