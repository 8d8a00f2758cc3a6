"""Who is told what is missing, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forebay.v1.autoscaler_pb2 import NodeDemand
from services.autoscaler.provider.feed import STALE_AFTER_S, Feed
from services.autoscaler.provider.protocol import ProviderError
from tests.support.eventually import eventually


class Watch:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


class Recorder:
    """A provider that remembers what it was told, and takes as long as the test says."""

    releases = True
    note = "all is well"
    busy = False

    def __init__(self, repeat_s: float = 3600.0) -> None:
        self.repeat_s = repeat_s
        self.told: list[int] = []
        self.error = ""
        self.free = asyncio.Event()
        self.free.set()

    async def apply(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        self.told.append(sum(shape.replica_count for shape in demand.unplaced))
        await self.free.wait()
        if self.error:
            raise ProviderError(self.error)


def missing(count: int, sample_s: int = 0) -> NodeDemand:
    made = NodeDemand(unplaced=[NodeDemand.Shape(replica_count=count)] if count else [])
    made.sample_time.FromSeconds(sample_s)
    return made


@asynccontextmanager
async def feeding(provider: Recorder, watch: Watch) -> AsyncIterator[Feed]:
    feed = Feed(provider, watch)
    task = asyncio.ensure_future(feed.run())
    yield feed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


NOBODY: frozenset[str] = frozenset()


async def test_a_change_is_told_once_and_a_later_sample_of_the_same_is_not() -> None:
    provider = Recorder()
    async with feeding(provider, Watch()) as feed:
        for sample_s in range(5):
            feed.offer(missing(2, sample_s), NOBODY)
        await eventually(lambda: provider.told == [2])
        feed.offer(missing(2, 9), NOBODY)
        feed.offer(missing(0, 10), NOBODY)
        await eventually(lambda: provider.told == [2, 0])
        assert feed.applied_count == 2


async def test_nothing_is_told_before_anything_was_missing() -> None:
    provider = Recorder(repeat_s=0.001)
    async with feeding(provider, Watch()) as feed:
        for _ in range(20):
            feed.offer(missing(0), NOBODY)
            await asyncio.sleep(0)
        feed.offer(missing(3), NOBODY)
        await eventually(lambda: provider.told)
        assert provider.told[0] == 3


async def test_the_latest_wins_while_the_provider_is_busy() -> None:
    provider = Recorder()
    async with feeding(provider, Watch()) as feed:
        provider.free.clear()
        feed.offer(missing(1), NOBODY)
        await eventually(lambda: provider.told == [1])
        for count in (2, 3, 4):
            feed.offer(missing(count), NOBODY)
        provider.free.set()
        await eventually(lambda: provider.told == [1, 4])


async def test_what_is_still_missing_is_told_again() -> None:
    provider = Recorder(repeat_s=0.01)
    async with feeding(provider, Watch()) as feed:
        feed.offer(missing(1), NOBODY)
        await eventually(lambda: len(provider.told) > 2)


async def test_a_provider_that_is_busy_hears_even_of_nothing() -> None:
    provider = Recorder(repeat_s=0.01)
    provider.busy = True
    async with feeding(provider, Watch()) as feed:
        feed.offer(missing(0), NOBODY)
        await eventually(lambda: provider.told[:2] == [0, 0])


async def test_an_autoscaler_that_offers_nothing_more_falls_silent() -> None:
    provider, watch = Recorder(repeat_s=0.01), Watch()
    async with feeding(provider, watch) as feed:
        feed.offer(missing(1), NOBODY)
        await eventually(lambda: len(provider.told) > 1)
        watch.now_s += STALE_AFTER_S + 1
        seen = [-1]

        def has_stopped() -> bool:
            seen.append(len(provider.told))
            return seen[-5:] == [len(provider.told)] * 5

        await eventually(has_stopped)
        # Until it leads again.
        feed.offer(missing(1), NOBODY)
        await eventually(lambda: len(provider.told) > seen[-1])


async def test_a_failure_is_counted_noted_and_followed_by_another_try(monkeypatch) -> None:
    monkeypatch.setattr("services.autoscaler.provider.feed.RETRY_S", 0.01)
    provider = Recorder()
    provider.error = "the server answered 500"
    async with feeding(provider, Watch()) as feed:
        assert feed.note == "all is well"
        feed.offer(missing(1), NOBODY)
        await eventually(lambda: feed.failed_count > 1)
        assert feed.note == "the server answered 500"
        provider.error = ""
        await eventually(lambda: feed.applied_count == 1)
        assert feed.note == "all is well"
