"""MetricsService: snapshots, once or every interval."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from forebay.v1 import metrics_pb2, metrics_pb2_grpc
from services.metrics.snapshots import Mesh

DEFAULT_INTERVAL_S = 1.0
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 60.0


class MetricsService(metrics_pb2_grpc.MetricsServiceServicer):
    """One consistent view of load."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._stopping = asyncio.Event()

    def end_watches(self) -> None:
        """Ends every watch, so that the server can stop at once; watchers dial again."""
        self._stopping.set()

    async def GetSnapshot(
        self, request: metrics_pb2.GetSnapshotRequest, context: grpc.aio.ServicerContext
    ) -> metrics_pb2.GetSnapshotResponse:
        """Returns the current snapshot."""
        return metrics_pb2.GetSnapshotResponse(snapshot=self._mesh.snapshot())

    async def WatchSnapshots(
        self, request: metrics_pb2.WatchSnapshotsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[metrics_pb2.WatchSnapshotsResponse]:
        """Streams a snapshot at once and then every interval."""
        interval_s = DEFAULT_INTERVAL_S
        if request.HasField("interval"):
            interval_s = request.interval.ToNanoseconds() / 1e9
        if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"interval = {interval_s} s: it must be {MIN_INTERVAL_S} s to {MAX_INTERVAL_S} s",
            )
        while not self._stopping.is_set():
            yield metrics_pb2.WatchSnapshotsResponse(snapshot=self._mesh.snapshot())
            try:
                async with asyncio.timeout(interval_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        await context.abort(grpc.StatusCode.UNAVAILABLE, "metrics is stopping: dial again")
