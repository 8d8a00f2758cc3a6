"""MetricsService: snapshots, once or every interval, as the bytes that they are built as."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from forebay.v1 import metrics_pb2
from services.metrics.snapshots import Mesh
from services.runtime.clock import Clock

SERVICE = "forebay.v1.MetricsService"

DEFAULT_INTERVAL_S = 1.0
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 60.0

SHARED_FOR_S = 0.05
"""A snapshot so young is given again rather than built anew."""

# Field 1, length-delimited (protobuf's encoding guide, "Message Structure").
_SNAPSHOT_TAG = b"\x0a"


class MetricsService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """One consistent view of load."""

    def __init__(self, mesh: Mesh, clock: Clock) -> None:
        self._mesh = mesh
        self._clock = clock
        self._stopping = asyncio.Event()
        self._built = b""
        self._built_s = float("-inf")
        self._handlers = {
            f"/{SERVICE}/GetSnapshot": grpc.unary_unary_rpc_method_handler(self._get),
            f"/{SERVICE}/WatchSnapshots": grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=metrics_pb2.WatchSnapshotsRequest.FromString,
            ),
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a call, or None if it is not one of ours."""
        return self._handlers.get(handler_call_details.method)

    def end_watches(self) -> None:
        """Ends every watch, so that the server can stop at once; watchers dial again."""
        self._stopping.set()

    async def _get(self, _: bytes, __: grpc.aio.ServicerContext) -> bytes:
        """Returns the current snapshot."""
        # GetSnapshotResponse and WatchSnapshotsResponse are the same on the wire.
        return _response(self._mesh.serialized_snapshot())

    async def _watch(
        self, request: metrics_pb2.WatchSnapshotsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """Streams a snapshot at once and then every interval.

        Intervals of all watchers begin at the same instants, so that those of one length share each
        snapshot; only the first interval of a watch is shorter.
        """
        interval_s = DEFAULT_INTERVAL_S
        if request.HasField("interval"):
            interval_s = request.interval.ToNanoseconds() / 1e9
        if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"interval = {interval_s} s: it must be {MIN_INTERVAL_S} s to {MAX_INTERVAL_S} s",
            )
        while not self._stopping.is_set():
            yield self._shared()
            pause_s = interval_s - self._clock.monotonic_s() % interval_s
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        await context.abort(grpc.StatusCode.UNAVAILABLE, "metrics is stopping: dial again")

    def _shared(self) -> bytes:
        now_s = self._clock.monotonic_s()
        if now_s - self._built_s > SHARED_FOR_S:
            self._built = _response(self._mesh.serialized_snapshot())
            # When it was begun: building takes a tenth of a second in a mesh of a thousand nodes.
            self._built_s = now_s
        return self._built


def _response(snapshot: bytes) -> bytes:
    """A response whose only field is the snapshot, around one that is serialised already."""
    size = len(snapshot)
    head = bytearray(_SNAPSHOT_TAG)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + snapshot
