"""Copies of key-value buckets in a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest

from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


@pytest.fixture
def nats_server(tmp_path: Path):
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def link(nats_server: NatsServer) -> AsyncIterator[NatsLink]:
    async with linked(nats_server.url) as made:
        yield made


@pytest.fixture
async def mirror(nats_server: NatsServer) -> AsyncIterator[KvMirror]:
    link = NatsLink("mirror", nats_server.url)
    made = KvMirror(link, streams.deployments_bucket)
    stopping = asyncio.Event()
    tasks = [asyncio.ensure_future(link.run(stopping)), asyncio.ensure_future(made.run())]
    await eventually(lambda: link.connected)
    yield made
    stopping.set()
    await tasks[0]
    while not tasks[1].done():
        tasks[1].cancel()
        await asyncio.wait(tasks, timeout=0.1)
    await link.close()


async def test_is_whole_however_much_is_written_while_it_is_read(
    mirror: KvMirror, link: NatsLink
) -> None:
    bucket = await streams.deployments_bucket(link.jetstream)
    for key in ("spec.a", "spec.b", "spec.c"):
        await bucket.put(key, b"0")

    async def write() -> None:
        while True:
            await bucket.put("spec.a", b"1")

    writer = asyncio.ensure_future(write())
    for _ in range(100):
        await mirror.reload()
        assert mirror.entries("spec.").keys() == {"a", "b", "c"}
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_looks_for_a_key_that_it_has_not_heard_of_and_still_hears_the_rest(
    nats_server: NatsServer, link: NatsLink
) -> None:
    bucket = await streams.deployments_bucket(link.jetstream)
    behind = KvMirror(link, streams.deployments_bucket)
    await behind.reload()
    # Nobody follows yet, as if the watch were late.
    await bucket.put("spec.a", b"1")
    await bucket.put("spec.b", b"2")
    await behind.look("spec.b")
    await behind.look("spec.c")
    assert behind.entries("spec.").keys() == {"b"}
    await bucket.delete("spec.b")
    following = asyncio.ensure_future(behind.run())
    await eventually(lambda: behind.entries("spec.").keys() == {"a"})
    await behind.look("spec.b")
    assert behind.entries("spec.").keys() == {"a"}
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_follows_what_others_write_and_delete(mirror: KvMirror, link: NatsLink) -> None:
    bucket = await streams.deployments_bucket(link.jetstream)
    with mirror.changes() as changed:
        changed.clear()
        await bucket.put("spec.a", b"1")
        await asyncio.wait_for(changed.wait(), 30)
    await eventually(lambda: mirror.entries("spec.")["a"].value == b"1")
    await bucket.delete("spec.a")
    await eventually(lambda: mirror.get("spec.a") is None)


async def test_knows_its_own_writes_at_once(mirror: KvMirror) -> None:
    made = await mirror.put("spec.a", b"1", 0)
    assert mirror.get("spec.a") == made
    await mirror.delete("spec.a")
    assert mirror.get("spec.a") is None
    again = await mirror.put("spec.a", b"2", 0)
    await mirror.reload()
    assert mirror.get("spec.a") == again


async def test_a_write_based_on_something_old_is_refused(mirror: KvMirror, link: NatsLink) -> None:
    made = await mirror.put("spec.a", b"1", 0)
    bucket = await streams.deployments_bucket(link.jetstream)
    await bucket.put("spec.a", b"2")
    lost = nats.js.errors.KeyWrongLastSequenceError
    with pytest.raises(lost):
        await mirror.put("spec.a", b"3", made.revision)
    with pytest.raises(lost):
        await mirror.put("spec.a", b"3", 0)
    with pytest.raises(lost):
        await mirror.put("status.a", b"3", 0, given=("spec.a", made.revision - 1))


async def test_remembers_deletions_over_a_reload(mirror: KvMirror) -> None:
    await mirror.put("spec.a", b"1", 0)
    await mirror.delete("spec.a")
    await mirror.reload()
    await mirror.put("spec.a", b"2", 0)


async def test_goes_on_after_a_crash_of_nats(
    mirror: KvMirror, link: NatsLink, nats_server: NatsServer
) -> None:
    await mirror.put("spec.a", b"1", 0)
    connections = link.connections
    await asyncio.to_thread(nats_server.restart)
    await eventually(lambda: link.connected and link.connections > connections)

    async def written() -> bool:
        try:
            bucket = await streams.deployments_bucket(link.jetstream)
            await bucket.put("spec.a", b"2")
        except (nats.errors.Error, TimeoutError):
            # It listens before it has read its streams.
            return False
        return True

    await eventually(written)
    await eventually(lambda: mirror.entries("spec.")["a"].value == b"2")


async def test_leaves_no_consumers_behind(mirror: KvMirror, link: NatsLink) -> None:
    for _ in range(20):
        await mirror.reload()
    bucket = await streams.deployments_bucket(link.jetstream)

    async def few() -> bool:
        return (await bucket.status()).stream_info.state.consumer_count <= 1

    await eventually(few, timeout_s=30)
