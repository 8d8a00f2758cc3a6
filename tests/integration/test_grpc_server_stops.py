"""The event loop's own gRPC server at the end of its life."""

import asyncio
import contextlib
import socket
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop

from services.wire.http2 import frames as h2
from services.wire.http2.server import connection as connection_module
from services.wire.http2.server import grpc_server
from services.wire.http2.server.grpc_server import GrpcServer
from tests.support.eventually import eventually
from tests.support.grpc_front import (
    UNLIMITED,
    Handlers,
    begin,
    on_both_loops,
    serving,
    unary,
)
from tests.support.raw_http2 import raw_client

Status = grpc.StatusCode


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()
    return True


@on_both_loops
async def test_calls_under_way_are_answered_and_idle_connections_closed() -> None:
    async with serving() as front, front.channel() as channel, front.channel() as idle:
        await unary(idle, "echo")(b"")
        calls = [unary(channel, "held")(b"%d" % index) for index in range(10)]
        stream = channel.stream_stream("/test/upper")()
        await stream.write(b"a")
        assert await stream.read() == b"A"
        await eventually(lambda: front.handlers.waiting == 11)
        stopping = asyncio.ensure_future(front.server.stop(60))
        await eventually(lambda: len(front.connections) == 1)
        await stream.write(b"b")
        assert await stream.read() == b"B"
        await stream.done_writing()
        assert await stream.code() == Status.OK
        assert not stopping.done()
        front.handlers.release.set()
        assert await asyncio.gather(*calls) == [b"%d" % index for index in range(10)]
        began = asyncio.get_running_loop().time()
        await stopping
        assert asyncio.get_running_loop().time() - began < 30
        assert is_free(front.port)


@pytest.mark.parametrize("grace_s", [0, None, 0.2])
@on_both_loops
async def test_what_takes_longer_than_the_grace_is_unavailable(grace_s: float | None) -> None:
    async with serving() as front, front.channel() as channel:
        calls: list[Any] = [unary(channel, "wait")(b"") for _ in range(5)]
        calls.append(channel.stream_unary("/test/wait")())
        await eventually(
            lambda: front.handlers.waiting == 5 and len(front.connections[0].calls) == 6
        )
        await front.server.stop(grace_s)
        for call in calls:
            assert await call.code() == Status.UNAVAILABLE
        assert front.handlers.cancelled == 5
        assert is_free(front.port)


@on_both_loops
async def test_a_stream_that_stands_still_is_unavailable_too() -> None:
    async with serving() as front, front.channel() as channel:
        call = channel.unary_stream("/test/flood")(b"1000000")
        await call.read()
        await eventually(lambda: front.connections[0].streams.sending.kept_bytes > 65_536)
        await front.server.stop(0)
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() == Status.UNAVAILABLE
        assert await call.details() == "the server is stopping"


@on_both_loops
async def test_a_handler_that_is_broken_off_may_clean_up_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A thread may be late to begin.
    monkeypatch.setattr(grpc_server, "CLOSE_S", 30.0)
    cleaned = False

    async def own(body: bytes, context: Any) -> bytes:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            async with asyncio.timeout(30):
                await asyncio.get_running_loop().run_in_executor(None, is_free, 0)
            cleaned = True

    async with serving() as front, front.channel() as channel:
        front.handlers.add("own", grpc.unary_unary_rpc_method_handler(own))
        call = unary(channel, "own")(b"")
        await eventually(lambda: front.connections and front.connections[0].calls)
        await front.server.stop(0)
        assert cleaned
        assert await call.code() == Status.UNAVAILABLE


@on_both_loops
async def test_stopping_twice_and_before_the_start_does_nothing_more() -> None:
    server = GrpcServer(1000)
    await server.stop(0)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.stop(1)
    assert is_free(port)
    async with serving() as front, front.channel() as channel:
        await unary(channel, "echo")(b"")
        await asyncio.gather(front.server.stop(5), front.server.stop(5))
        await front.server.stop(0)
        assert is_free(front.port)


@on_both_loops
async def test_an_address_in_use_is_an_error() -> None:
    async with serving() as front:
        with pytest.raises(RuntimeError, match="in use"):
            GrpcServer(1000).add_insecure_port(front.address)


@on_both_loops
async def test_a_call_that_crosses_the_word_of_the_drain_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "PONG_WAIT_S", 30.0)
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        client.call(1, "/test/held", b"one")
        await eventually(lambda: front.handlers.waiting == 1)
        stopping = asyncio.ensure_future(front.server.stop(60))
        _, _, _, payload = await client.until(h2.GOAWAY)
        assert int.from_bytes(payload[:4], "big") == h2.LAST_STREAM
        _, _, _, opaque = await client.until(h2.PING)
        # It left before the client had read that.
        client.call(3, "/test/echo", b"two")
        await client.until(h2.DATA, 3)
        client.send(h2.ping(opaque, h2.ACK))
        _, _, _, payload = await client.until(h2.GOAWAY)
        assert int.from_bytes(payload[:4], "big") == 3
        client.call(5, "/test/echo", b"three")
        _, _, _, code = await client.until(h2.RST_STREAM, 5)
        assert int.from_bytes(code, "big") == h2.REFUSED_STREAM
        front.handlers.release.set()
        await client.until(h2.DATA, 1)
        await client.end()
        await stopping


@on_both_loops
async def test_a_pong_from_before_the_drain_is_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "PONG_WAIT_S", 4.0)
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        client.send(h2.ping(bytes(8), h2.ACK))
        client.call(1, "/test/held", b"one")
        await eventually(lambda: front.handlers.waiting == 1)
        connection = front.connections[0]
        # As if the client had been silent: its answer is on the way when the drain begins.
        connection.streams.sending.frames.append(h2.ping(bytes(8)))
        connection._pings_sent = connection.streams.pings_answered + 1
        connection.flush_soon()
        stopping = asyncio.ensure_future(front.server.stop(60))
        await client.until(h2.GOAWAY)
        client.send(h2.ping(bytes(8), h2.ACK))
        client.call(3, "/test/echo", b"two")
        await client.until(h2.DATA, 3)
        front.handlers.release.set()
        await stopping


@pytest.mark.parametrize("ends", ["takes", "resets"])
@on_both_loops
async def test_an_answer_that_is_taken_late_or_never_does_not_hold_up_the_stop(ends: str) -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet(initial_window_size=10)
        client.call(1, "/test/echo", bytes(100))
        await client.until(h2.DATA, 1)
        stopping = asyncio.ensure_future(front.server.stop(60))
        _, _, _, opaque = await client.until(h2.PING)
        client.send(h2.ping(opaque, h2.ACK))
        await client.until(h2.GOAWAY)
        assert not stopping.done()
        # Its handler has ended long ago.
        if ends == "takes":
            client.send(h2.window_update(1, 1000))
        else:
            client.send(h2.rst_stream(1, h2.CANCEL))
        await client.end()
        async with asyncio.timeout(5):
            await stopping


@on_both_loops
async def test_a_client_that_reads_nothing_does_not_hold_up_the_stop() -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet(initial_window_size=h2.MAX_WINDOW_BYTES)
        client.send(h2.window_update(0, 2**30))
        for index in range(10):
            client.call(2 * index + 1, "/test/flood", b"1000000")
        await eventually(lambda: front.connections and front.connections[0]._paused)
        client.writer.transport.pause_reading()
        async with asyncio.timeout(30):
            await front.server.stop(0.1)
        assert not front.connections


def test_one_that_connects_in_the_moment_of_the_stop_is_hung_up_on() -> None:
    # asyncio's own loop loses such a socket until the next garbage collection.
    uvloop.run(run_moments())


async def run_moments() -> None:
    async def connects(port: int) -> None:
        with contextlib.suppress(ConnectionError):
            async with raw_client(port) as client:
                await client.end()

    for turns in range(30):
        front = await begin(Handlers())
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(connects(front.port))
            for _ in range(turns % 10):
                await asyncio.sleep(0)
            await front.server.stop(0)
        assert not front.connections


async def calls_without_end(channel: Any, done: asyncio.Event, failed: list[str]) -> int:
    """Makes calls until it is told to stop; returns how many."""
    count = 0
    while not done.is_set():
        body = str(count).encode()
        try:
            assert await unary(channel, "echo")(body) == body
        except grpc.aio.AioRpcError as error:
            failed.append(f"{error.code()} {error.details()} {error.debug_error_string()}")
        count += 1
    return count


@pytest.mark.parametrize("policy", ["pick_first", "round_robin"])
@on_both_loops
async def test_no_call_fails_while_servers_are_replaced_one_by_one(policy: str) -> None:
    fronts = [await begin(Handlers()) for _ in range(2)]
    addresses = ",".join(front.address for front in fronts)
    failed: list[str] = []
    done = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(
                    f"ipv4:{addresses}",
                    options=[
                        ("grpc.use_local_subchannel_pool", 1),
                        ("grpc.lb_policy_name", policy),
                        ("grpc.initial_reconnect_backoff_ms", 100),
                        ("grpc.max_reconnect_backoff_ms", 100),
                        *UNLIMITED,
                    ],
                )
            )
            for _ in range(4)
        ]
        for channel in channels:
            await unary(channel, "echo")(b"")
        running = [
            asyncio.ensure_future(calls_without_end(channel, done, failed))
            for channel in channels * 8
        ]
        for turn in range(12):
            old = fronts[turn % 2]
            await old.server.stop(60)
            fronts[turn % 2] = await begin(Handlers(), old.port)
            # One that knows a single way is left without when the other server goes.
            ways = len(channels) * (2 if policy == "round_robin" else 1)
            await eventually(lambda: sum(len(f.connections) for f in fronts) >= ways)  # noqa: B023
        done.set()
        counts = await asyncio.gather(*running)
    for front in fronts:
        await front.server.stop(0)
    assert not failed
    assert sum(counts) > 1000
