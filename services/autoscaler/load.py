"""What metrics sees, watched for ever."""

import asyncio
import random

import grpc
import grpc.aio
import structlog
from google.protobuf.duration_pb2 import Duration

from forebay.v1.metrics_pb2 import Snapshot, WatchSnapshotsRequest
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from services.runtime.clock import Clock
from services.wire.channels import open_channel

log = structlog.get_logger()

INTERVAL_S = 0.5
STALE_AFTER_S = 5.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class LoadWatch:
    """The last snapshot, and whether it can still be trusted."""

    def __init__(self, address: str, clock: Clock, changed: asyncio.Event) -> None:
        """Knows nothing until `run` does.

        Args:
            address: of metrics.
            clock: tells how old a snapshot is.
            changed: set with every snapshot.
        """
        self._address = address
        self._clock = clock
        self._changed = changed
        self._snapshot: Snapshot | None = None
        self._received_s = 0.0

    def fresh(self) -> Snapshot | None:
        """The last snapshot; None if there was none yet or it is too old to act on."""
        if self._clock.monotonic_s() - self._received_s > STALE_AFTER_S:
            return None
        return self._snapshot

    @property
    def age_s(self) -> float | None:
        """Age of the last snapshot in seconds; None if there was none yet."""
        if self._snapshot is None:
            return None
        return self._clock.monotonic_s() - self._received_s

    async def run(self) -> None:
        """Watches for ever, dialling again with growing pauses."""
        pause_s = FIRST_PAUSE_S
        said = ""
        async with open_channel(self._address) as channel:
            stub = MetricsServiceStub(channel)
            while True:
                before_s = self._received_s
                try:
                    await self._watch(stub)
                    reason = "the stream ended"
                except grpc.aio.AioRpcError as error:
                    reason = f"{error.code().name}: {error.details()}"
                except TimeoutError:
                    reason = f"nothing came for {STALE_AFTER_S} s"
                pause_s = FIRST_PAUSE_S if self._received_s != before_s else pause_s * 2
                pause_s = min(pause_s, LONGEST_PAUSE_S)
                if reason != said:
                    log.warning("load.watch_ended", metrics=self._address, reason=reason)
                said = reason if self._received_s == before_s else ""
                # Without jitter all watchers of a restarted metrics would dial in step.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311

    async def _watch(self, stub: MetricsServiceStub) -> None:
        interval = Duration()
        interval.FromNanoseconds(int(INTERVAL_S * 1e9))
        call = stub.WatchSnapshots(WatchSnapshotsRequest(interval=interval))
        try:
            while True:
                async with asyncio.timeout(STALE_AFTER_S):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                self._snapshot = response.snapshot
                self._received_s = self._clock.monotonic_s()
                self._changed.set()
        finally:
            # An abandoned stream is not cancelled by grpcio itself.
            call.cancel()
