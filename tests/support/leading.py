"""What a duty of the leading autoscaler needs, on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler.leadership import Leadership
from services.runtime.clock import SystemClock
from services.runtime.tasks import run_until
from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.tasks.ledger import TaskLedger
from tests.support.eventually import eventually


class ShiftedClock(SystemClock):
    """This machine's clock, which a test can put forward.

    Attributes:
        ahead_s: how far it was put forward.
    """

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds since some start."""
        return super().monotonic_s() + self.ahead_s

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return super().wall_s() + self.ahead_s


class ShiftedServerClock(ServerClock):
    """nats-server's clock, put forward with another.

    It is estimated by this machine's clock, which a test leaves alone.
    """

    def __init__(self, link: NatsLink, shifted: ShiftedClock) -> None:
        """Goes as far ahead as `shifted` does."""
        super().__init__(link, SystemClock())
        self._shifted = shifted

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return super().now_s() + self._shifted.ahead_s


@dataclass
class Leading:
    """The parts; the clocks are for the duty alone, not for the lease."""

    link: NatsLink
    ledger: TaskLedger
    deployments: KvMirror
    leadership: Leadership
    clock: ShiftedClock
    server_clock: ServerClock

    async def declare(self, deployment: str) -> None:
        """Has a deployment be declared."""
        name = f"deployments/{deployment}"
        spec = Deployment(name=name).SerializeToString()
        await self.deployments.put(f"spec.{deployment}", spec, 0)


@asynccontextmanager
async def leading(url: str, must_lead: bool = True) -> AsyncIterator[Leading]:
    """Competes for the lease like an autoscaler, until the block ends.

    Args:
        url: of nats-server.
        must_lead: waits until it leads.
    """
    link = NatsLink("test-autoscaler", url)
    deployments = KvMirror(link, streams.deployments_bucket)
    assignments = KvMirror(link, streams.assignments_bucket)
    leadership = Leadership(link, assignments, SystemClock(), "127.0.0.1:1")
    ledger = TaskLedger(link)
    clock = ShiftedClock()
    server_clock = ShiftedServerClock(link, clock)
    stopping = asyncio.Event()
    running = asyncio.ensure_future(
        run_until(
            stopping,
            nats=link.run(stopping),
            deployments=deployments.run(),
            assignments=assignments.run(),
            leadership=leadership.run(),
        )
    )
    try:
        await eventually(lambda: link.connected)
        if must_lead:
            await eventually(lambda: leadership.leading)
        yield Leading(link, ledger, deployments, leadership, clock, server_clock)
    finally:
        stopping.set()
        try:
            await running
            await leadership.release()
        finally:
            await link.close()
