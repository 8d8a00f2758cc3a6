"""An autoscaler and metrics as a node agent sees them, which say and keep what the test wants.

They speak the real protocols; nothing is decided.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from forebay.v1.autoscaler_pb2 import (
    Assignment,
    WatchAssignmentsRequest,
    WatchAssignmentsResponse,
)
from forebay.v1.autoscaler_pb2_grpc import (
    AutoscalerServiceServicer,
    add_AutoscalerServiceServicer_to_server,
)
from forebay.v1.node_pb2 import NodeReport, ReplicaStatus, ReportRequest, ReportResponse
from forebay.v1.node_pb2_grpc import NodeServiceServicer, add_NodeServiceServicer_to_server
from services.wire.channels import SERVER_OPTIONS

INTERVAL_S = 30.0
"""Between reports: one that comes sooner was sent because something changed."""


class Leader(AutoscalerServiceServicer, NodeServiceServicer):
    """One autoscaler and metrics at one address.

    Attributes:
        address: as host:port, once it serves.
        leading: else every watch is refused as a standby refuses it.
        reports: all there were, each with the time of its arrival on the monotonic clock.
        asked_s: when each watch was asked for, on the same clock.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self.address = "127.0.0.1:0"
        self.leading = True
        self.reports: list[tuple[float, NodeReport]] = []
        self.asked_s: list[float] = []
        self._response = WatchAssignmentsResponse(epoch=1)
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Leader"]:
        """Serves until the block ends; the next time at the same address."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        add_AutoscalerServiceServicer_to_server(self, server)
        add_NodeServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port(self.address)}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    async def say(self, assignments: Iterable[Assignment], revision: int, epoch: int = 1) -> None:
        """Has every watch told this."""
        async with self._changed:
            self._response = WatchAssignmentsResponse(
                assignments=assignments, revision=revision, epoch=epoch
            )
            self._changed.notify_all()

    @property
    def last(self) -> NodeReport:
        """The latest report."""
        return self.reports[-1][1]

    def first(self, state: ReplicaStatus.State) -> tuple[float, ReplicaStatus]:
        """The first replica reported in a state, and when that was.

        Raises:
            LookupError: if there was none yet.
        """
        for arrived_s, report in self.reports:
            for replica in report.replicas:
                if replica.state == state:
                    return arrived_s, replica
        raise LookupError(f"no replica was {ReplicaStatus.State.Name(state)}")

    async def WatchAssignments(
        self, request: WatchAssignmentsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[WatchAssignmentsResponse]:
        """Streams what is said."""
        self.asked_s.append(time.monotonic())
        if not self.leading:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "this autoscaler stands by; 127.0.0.1:1 leads"
            )
        while True:
            response = self._response
            yield response
            async with self._changed:
                await self._changed.wait_for(lambda told=response: self._response is not told)

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ReportResponse]:
        """Keeps what is reported."""
        response = ReportResponse()
        response.report_interval.FromMilliseconds(int(self._interval_s * 1000))
        async for request in requests:
            if request.HasField("report"):
                self.reports.append((time.monotonic(), request.report))
            yield response
