"""The event loop's own gRPC server under load: what it keeps, and what it leaves behind."""

import asyncio
import contextlib
import gc
import random
from typing import Any

import grpc
import grpc.aio

from services.wire.http2 import frames as h2
from services.wire.http2.server.server_call import MAX_UNSENT_BYTES
from tests.support.eventually import eventually
from tests.support.grpc_front import Front, alive, on_both_loops, serving, unary
from tests.support.raw_http2 import RawClient, raw_client

MB = 1_000_000


def kept_bytes(front: Front) -> int:
    """What the server keeps for clients that do not read."""
    return sum(
        connection._transport.get_write_buffer_size()
        + sum(stream.unsent_bytes for stream in connection.streams.open.values())
        for connection in front.connections
    )


def open_windows(client: RawClient) -> None:
    """Begins as a client that takes all it could ever be sent."""
    client.greet(initial_window_size=h2.MAX_WINDOW_BYTES)
    client.send(h2.window_update(0, h2.MAX_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES))


async def stands_still(front: Front) -> int:
    """How much has been written once nothing more is."""
    before = -1
    while before != front.handlers.written:
        before = front.handlers.written
        await asyncio.sleep(0.2)
    return before


@on_both_loops
async def test_twenty_thousand_calls_leave_nothing_behind() -> None:
    async def some(channel: Any, count: int) -> None:
        for _ in range(count):
            await unary(channel, "echo")(b"x", timeout=120)

    async def cancelled(channel: Any, count: int) -> None:
        for index in range(count):
            call = unary(channel, "wait")(b"", timeout=120)
            if index % 2:
                await eventually(lambda: front.handlers.waiting)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            await eventually(lambda: not front.handlers.waiting)

    async with serving() as front, front.channel() as channel:
        await some(channel, 100)
        await eventually(lambda: alive() == 0)
        objects_before = len(gc.get_objects())
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(some(channel, 400))
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(cancelled(channel, 40))
        (connection,) = front.connections
        await eventually(lambda: not connection.calls and not connection.streams.open)
        await eventually(lambda: alive() == 0)
        assert len(gc.get_objects()) < objects_before + 2000


@on_both_loops
async def test_a_stream_that_its_client_does_not_read_waits_and_others_go_on() -> None:
    async with serving() as front, front.channel() as channel, front.channel() as other:
        flood = channel.unary_stream("/test/flood")(b"%d" % MB)
        await flood.read()
        await stands_still(front)
        assert front.handlers.written < 40
        assert kept_bytes(front) <= MB + MAX_UNSENT_BYTES + 5
        assert await unary(other, "echo")(b"x") == b"x"
        assert await unary(channel, "echo")(b"x") == b"x", "only the stream stands still"
        for _ in range(20):
            assert len(await flood.read()) == MB
        flood.cancel()
        await eventually(lambda: front.handlers.waiting == 0 and kept_bytes(front) == 0)


@on_both_loops
async def test_a_client_that_reads_nothing_is_not_read_either() -> None:
    async with serving() as front, front.channel() as other:
        async with raw_client(front.port, takes_bytes=64 * 1024) as client:
            client.writer.transport.pause_reading()
            open_windows(client)
            for index in range(50):
                client.call(2 * index + 1, "/test/flood", b"%d" % MB)
            await eventually(lambda: front.handlers.waiting == 50)
            assert await stands_still(front) <= 100
            assert kept_bytes(front) < 105 * MB
            for index in range(50, 3000):
                client.call(2 * index + 1, "/test/echo", bytes(10_000))
            await stands_still(front)
            assert client.writer.transport.get_write_buffer_size() > 20 * MB
            assert kept_bytes(front) < 105 * MB
            # Nor is one that reads a little now and then.
            client.writer.transport.resume_reading()
            for _ in range(400):
                await client.until(h2.DATA)
            client.writer.transport.pause_reading()
            await stands_still(front)
            assert client.writer.transport.get_write_buffer_size() > 20 * MB
            assert await unary(other, "echo")(b"x") == b"x"
        await eventually(lambda: front.handlers.waiting == 0)


@on_both_loops
async def test_a_stream_of_small_messages_does_not_starve_others() -> None:
    async def usual_s(channel: Any) -> float:
        took_s = []
        for _ in range(50):
            began_s = asyncio.get_running_loop().time()
            assert await unary(channel, "echo")(b"x", timeout=60) == b"x"
            took_s.append(asyncio.get_running_loop().time() - began_s)
        return sorted(took_s)[25]

    async with serving() as front, front.channel() as other, raw_client(front.port) as client:
        alone_s = await usual_s(other)
        open_windows(client)
        client.call(1, "/test/flood", b"10")
        await client.until(h2.DATA, 1)
        assert await usual_s(other) < 0.1 + 20 * alone_s
        assert kept_bytes(front) < MB


@on_both_loops
async def test_a_request_stream_that_its_handler_does_not_read_waits() -> None:
    begun = asyncio.Event()
    sent = 0

    async def own(requests: Any, context: Any) -> bytes:
        begun.set()
        await front.handlers.release.wait()
        return b"%d" % sum([len(request) async for request in requests])

    async def requests() -> Any:
        nonlocal sent
        while sent < 200:
            yield bytes(100_000)
            sent += 1

    async with serving() as front, front.channel() as channel:
        front.handlers.add("own", grpc.stream_unary_rpc_method_handler(own))
        call = asyncio.ensure_future(channel.stream_unary("/test/own")(requests()))
        await begun.wait()
        assert await unary(channel, "echo")(b"x") == b"x"
        (connection,) = front.connections
        (stream,) = connection.streams.open.values()
        await eventually(lambda: stream.reader.unread_bytes >= 65_535)
        assert await unary(channel, "echo")(bytes(MB)) == bytes(MB)
        assert stream.reader.unread_bytes < 200_000
        assert sent < 10
        front.handlers.release.set()
        assert await call == b"20000000"


@on_both_loops
async def test_a_call_that_takes_one_message_is_ended_by_more() -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        client.call(1, "/test/wait", None)
        client.data(1, b"\0\0\0\0\1x")
        await eventually(lambda: front.handlers.waiting == 1)
        client.data(1, b"\0\0\0\0\1x" * 10_000)
        await client.until(h2.RST_STREAM, 1)
        await eventually(lambda: front.handlers.cancelled == 1)
        assert not front.connections[0].calls
        client.call(3, "/test/wait", None)
        client.data(3, b"\0\0\0\0\1x" * 10_000)
        await client.until(h2.RST_STREAM, 3)
        assert not front.connections[0].calls
        client.call(5, "/test/join", None)
        client.data(5, b"\0\0\0\0\1x" * 1000, h2.END_STREAM)
        await client.until(h2.DATA, 5)


@on_both_loops
async def test_many_large_replies_to_one_client_arrive_whole() -> None:
    bodies = [bytes([index]) * (index * 50_000) for index in range(100)]
    async with serving() as front, front.channel() as channel:
        echo = unary(channel, "echo")
        for _ in range(2):
            assert list(await asyncio.gather(*map(echo, bodies))) == bodies
        assert kept_bytes(front) == 0
        assert not front.connections[0].streams.open


@on_both_loops
async def test_calls_of_all_kinds_that_end_in_all_ways_leave_nothing() -> None:
    dice = random.Random(3)

    async def words(count: int) -> Any:
        for index in range(count):
            yield b"%d" % index * dice.randrange(1, 50_000)

    def some_call(channel: Any) -> Any:
        timeout_s = dice.choice([None, 0.001, 0.01, 0.1])
        kind = dice.choice(["echo", "wait", "fail", "count", "flood", "join", "upper"])
        method = f"/test/{kind}"
        if kind in {"echo", "wait", "fail"}:
            body = b"5 gone" if kind == "fail" else bytes(dice.choice([0, 10, 300_000]))
            return channel.unary_unary(method)(body, timeout=timeout_s)
        if kind in {"count", "flood"}:
            return channel.unary_stream(method)(b"%d" % dice.randrange(20_000), timeout=timeout_s)
        kind_of = channel.stream_unary if kind == "join" else channel.stream_stream
        return kind_of(method)(words(dice.randrange(10)), timeout=timeout_s)

    async def play(channel: Any) -> None:
        for _ in range(100):
            call = some_call(channel)
            asyncio.get_running_loop().call_later(dice.random() * 0.1, call.cancel)
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                if hasattr(call, "__aiter__"):
                    async for _ in call:
                        pass
                else:
                    await call

    async with serving() as front, front.channel() as channel, front.channel() as other:
        async with asyncio.TaskGroup() as group:
            for index in range(30):
                group.create_task(play(channel if index % 2 else other))
        await eventually(lambda: not front.handlers.waiting)
        for connection in front.connections:
            await eventually(lambda: not connection.calls and not connection.streams.open)  # noqa: B023
        await eventually(lambda: alive() == 0)
        assert await unary(channel, "echo")(b"x") == b"x"
        assert len(front.connections) == 2
