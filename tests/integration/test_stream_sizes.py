"""How full streams are, and on how many servers, as real nats-servers say it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest

from services.metrics.stream_metrics import StreamSize
from services.metrics.stream_sizes import INTERVAL_S, STALE_AFTER_S, StreamSizes
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer


class HandClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds since some start."""
        return self.now_s

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return self.now_s


@asynccontextmanager
async def asking(link: NatsLink, clock: HandClock) -> AsyncIterator[StreamSizes]:
    """Asks while the block lasts."""
    sizes = StreamSizes(link, clock)
    task = asyncio.ensure_future(sizes.run())
    try:
        yield sizes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def of(sizes: StreamSizes, stream: str) -> StreamSize | None:
    """What is known of a stream."""
    return next((size for size in sizes.current() if size.stream == stream), None)


async def test_what_was_not_answered_for_too_long_is_left_out(tmp_path: Path) -> None:
    clock = HandClock()
    with NatsServer(tmp_path / "nats") as nats:
        async with linked(nats.url) as link:
            await streams.ensure_requests(link.jetstream)
            await link.jetstream.publish(subjects.request("add"), b"x" * 1000)
            async with asking(link, clock) as sizes:
                size = await eventually(lambda: of(sizes, streams.REQUESTS))
                assert (size.messages, size.max_bytes) == (1, 512 << 20)
                assert size.stored_bytes >= 1000
                assert (size.copies, size.current_copies) == (1, 1)
                nats.kill()
                await eventually(lambda: not link.connected)
                clock.now_s += STALE_AFTER_S - 0.1
                assert of(sizes, streams.REQUESTS) == size
                clock.now_s += 0.2
                assert not sizes.current()
                nats.start()
                await streams_again(link)
                await eventually(lambda: of(sizes, streams.DECISIONS), timeout_s=6 * INTERVAL_S)


async def streams_again(link: NatsLink) -> None:
    """A stream that a restart brings back."""
    await eventually(lambda: link.connected)
    await eventually(lambda: _decisions(link))


@pytest.mark.timeout(300)
async def test_a_server_that_is_gone_is_a_copy_less(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        link = NatsLink("test", cluster.url, stream_replicas=3)
        stopping = asyncio.Event()
        running = asyncio.ensure_future(link.run(stopping))
        try:
            await eventually(lambda: link.connected)
            await eventually(lambda: _decisions(link))
            async with asking(link, HandClock()) as sizes:

                def copies() -> tuple[int, int]:
                    size = of(sizes, streams.DECISIONS)
                    assert size is not None
                    return size.copies, size.current_copies

                await eventually(lambda: copies() == (3, 3), timeout_s=60)
                cluster.servers[-1].kill()
                await eventually(lambda: copies() == (3, 2), timeout_s=60)
                cluster.servers[-1].start()
                await eventually(lambda: copies() == (3, 3), timeout_s=60)
        finally:
            stopping.set()
            await running
            await link.close()


async def _decisions(link: NatsLink) -> bool:
    """Until a server is ready, or the cluster has a leader, it takes no stream."""
    try:
        await streams.ensure_decisions(link.jetstream)
    except (nats.errors.Error, TimeoutError) as error:
        raise AssertionError(str(error)) from error
    return True
