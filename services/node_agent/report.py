"""Reports this node's complete state to metrics, on every tick, over one stream."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio
import structlog

from forebay.v1.node_pb2 import NodeRegistration, NodeReport, ReportRequest
from forebay.v1.node_pb2_grpc import NodeServiceStub
from services.runtime.clock import Clock
from services.wire import names
from services.wire.channels import open_channel

log = structlog.get_logger()

RETRY_S = 1.0
FIRST_INTERVAL_S = 1.0


class Reporter:
    """The session with metrics."""

    def __init__(
        self,
        address: str,
        node: str,
        version: str,
        clock: Clock,
        state: Callable[[], Awaitable[NodeReport]],
        changed: asyncio.Event,
    ) -> None:
        """Reports what `state` returns to the metrics service at an address.

        Args:
            address: of metrics, as host:port.
            node: id of this node.
            version: of the agent software.
            clock: this machine's.
            state: gives the complete state.
            changed: set by whoever changes something: the next report goes out at once.
        """
        self._address = address
        self._registration = NodeRegistration(
            node=names.node_name(node), instance_id=secrets.token_hex(8), agent_version=version
        )
        self._clock = clock
        self._state = state
        self._interval_s = FIRST_INTERVAL_S
        self._changed = changed

    async def run(self) -> None:
        """Reports for ever; a broken stream is opened again after a second."""
        async with open_channel(self._address) as channel:
            stub = NodeServiceStub(channel)
            while True:
                call = stub.Report(self._requests())
                try:
                    async for response in call:
                        self._interval_s = response.report_interval.ToMilliseconds() / 1000 or 1.0
                    log.warning("report.ended")
                except grpc.aio.AioRpcError as error:
                    log.warning("report.broken", code=error.code().name, details=error.details())
                finally:
                    # grpcio leaves an abandoned stream open.
                    call.cancel()
                await asyncio.sleep(RETRY_S)

    async def _requests(self) -> AsyncIterator[ReportRequest]:
        yield ReportRequest(registration=self._registration)
        sequence_number = 0
        while True:
            sequence_number += 1
            # Before the state is read: what changes while it is makes another report.
            self._changed.clear()
            report = await self._state()
            report.sequence_number = sequence_number
            report.sample_time.FromMilliseconds(int(self._clock.wall_s() * 1000))
            yield ReportRequest(report=report)
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
