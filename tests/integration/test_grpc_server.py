"""The event loop's own gRPC server, called by grpcio's clients."""

import asyncio
import socket
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from services.wire.http2.server.grpc_server import GrpcServer
from tests.support.eventually import eventually
from tests.support.grpc_front import (
    LIMIT,
    UNLIMITED,
    Handlers,
    begin,
    on_both_loops,
    serving,
    unary,
)


async def several(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


@on_both_loops
async def test_all_four_kinds_of_calls_are_answered() -> None:
    async with serving() as front, front.channel() as channel:
        assert await unary(channel, "echo")(b"body") == b"body"
        counted = channel.unary_stream("/test/count")(b"500")
        assert [int(m) async for m in counted] == list(range(500))
        assert await channel.stream_unary("/test/join")(several(b"a", b"", b"c")) == b"a++c"
        call = channel.stream_stream("/test/upper")()
        for word in (b"one", b"two"):
            await call.write(word)
            assert await call.read() == word.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


@on_both_loops
async def test_a_client_that_blocks_is_answered_too() -> None:
    def talk(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            assert channel.unary_unary("/test/echo")(b"body") == b"body"
            assert list(channel.unary_stream("/test/count")(b"3")) == [b"0", b"1", b"2"]
            assert channel.stream_unary("/test/join")(iter([b"a", b"b"])) == b"a+b"
            assert list(channel.stream_stream("/test/upper")(iter([b"a", b"b"]))) == [b"A", b"B"]
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/test/wait")(b"", timeout=0.1)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    async with serving() as front:
        await asyncio.to_thread(talk, front.address)


@on_both_loops
async def test_serialisers_are_used() -> None:
    async with serving() as front, front.channel() as channel:

        async def double(number: int, _: grpc.aio.ServicerContext) -> int:
            return 2 * number

        front.handlers.add(
            "double",
            grpc.unary_unary_rpc_method_handler(
                double, request_deserializer=int, response_serializer=lambda n: str(n).encode()
            ),
        )
        call = channel.unary_unary(
            "/test/double",
            request_serializer=lambda n: str(n).encode(),
            response_deserializer=int,
        )
        assert await call(21) == 42


@on_both_loops
async def test_metadata_goes_both_ways() -> None:
    async with serving() as front, front.channel() as channel:
        sent = (("tenant", "a, b"), ("token-bin", bytes(range(256))), ("empty", ""))
        call = unary(channel, "metadata")(b"body", metadata=sent)
        assert dict(await call.initial_metadata()) == {"first": "1", "first-bin": b"\x01\x00"}
        assert await call == b"body"
        assert dict(await call.trailing_metadata()) == {"last": "2", "last-bin": b"\x02\x00"}
        assert front.handlers.seen.items() >= dict(sent).items()
        assert "grpc-timeout" not in front.handlers.seen


@on_both_loops
async def test_every_status_comes_with_its_text_and_metadata() -> None:
    text = "100 % of ü\nand “more”"
    async with serving() as front, front.channel() as channel:
        for code in range(1, 17):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel, "fail")(f"{code} {text}".encode())
            assert caught.value.code().value[0] == code
            assert caught.value.details() == text
            trailing = dict(caught.value.trailing_metadata())
            assert trailing == {"why": "asked", "more-bin": b"\x00\xff"}


@on_both_loops
async def test_bodies_of_every_size_go_both_ways() -> None:
    async with serving() as front, front.channel() as channel:
        for size in (0, 1, 16_379, 16_380, 65_530, 65_531, 600_000, 8 * 1024 * 1024, LIMIT):
            body = (b"0123456789abcde" * (size // 15 + 1))[:size]
            assert await unary(channel, "echo")(body) == body


@on_both_loops
async def test_a_message_over_the_limit_is_refused_and_the_connection_stays() -> None:
    async with serving() as front, front.channel() as channel:
        for size in (LIMIT + 1, 3 * LIMIT):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel, "echo")(bytes(size))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"the limit is {LIMIT}" in caught.value.details()
        assert await unary(channel, "echo")(b"small") == b"small"
        assert len(front.connections) == 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@on_both_loops
async def test_compressed_requests_are_taken_apart(compression: grpc.Compression) -> None:
    async with serving() as front, front.channel() as channel:
        for body in (b"", b"x" * 100_000, bytes(LIMIT)):
            call = unary(channel, "echo")(body, compression=compression)
            assert await call == body
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel, "echo")(bytes(LIMIT + 1), compression=compression)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@on_both_loops
async def test_two_hundred_calls_at_once_get_their_own_replies() -> None:
    bodies = [str(index).encode() * (index * 37) for index in range(200)]
    async with serving() as front, front.channel() as channel:
        echo = unary(channel, "echo")
        assert list(await asyncio.gather(*map(echo, bodies))) == bodies
        large = [bytes([index]) * 600_000 for index in range(50)]
        assert list(await asyncio.gather(*map(echo, large))) == large
        assert len(front.connections) == 1


@on_both_loops
async def test_a_deadline_ends_the_call_and_its_handler() -> None:
    async with serving() as front, front.channel() as channel:
        await unary(channel, "echo")(b"connected")
        for name in ("wait", "flood"):
            # Enough for the call to come, also where the machine is busy.
            call = channel.unary_stream(f"/test/{name}")(b"10", timeout=1.5)
            await eventually(lambda: front.handlers.waiting == 1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await eventually(lambda: front.handlers.waiting == 0)
        assert front.handlers.cancelled == 1


@on_both_loops
async def test_a_deadline_passes_while_the_request_is_on_its_way() -> None:
    async with serving() as front, front.channel() as channel:

        async def silent() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        await unary(channel, "echo")(b"connected")
        # A unary method, of which no request ever comes.
        call = channel.stream_unary("/test/echo")(silent(), timeout=1.5)
        await eventually(lambda: front.connections and front.connections[0].calls)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: not front.connections[0].calls)


@on_both_loops
async def test_a_handler_knows_how_much_time_remains() -> None:
    async with serving() as front, front.channel() as channel:
        await unary(channel, "echo")(b"", timeout=300)
        assert front.handlers.remaining_s is not None
        # grpcio rounds what it writes into the header up.
        assert 250 < front.handlers.remaining_s < 310
        await unary(channel, "echo")(b"")
        assert front.handlers.remaining_s is None


@on_both_loops
async def test_a_call_that_its_client_cancels_ends_its_handler() -> None:
    async with serving() as front, front.channel() as channel:
        calls = [unary(channel, "wait")(b"") for _ in range(20)]
        calls.append(channel.stream_stream("/test/upper")())
        calls.append(channel.unary_stream("/test/flood")(b"1000000"))
        await eventually(lambda: front.handlers.waiting == 22)
        for call in calls:
            call.cancel()
        await eventually(lambda: front.handlers.waiting == 0)
        assert front.handlers.cancelled == 21
        await eventually(lambda: not front.connections[0].calls)


@on_both_loops
async def test_a_connection_that_breaks_ends_its_handlers() -> None:
    async with serving() as front:
        channel = front.channel()
        calls = [unary(channel, "wait")(b"") for _ in range(5)]
        flood = channel.unary_stream("/test/flood")(b"1000000")
        await eventually(lambda: front.handlers.waiting == 6)
        front.connections[0].abort()
        await eventually(lambda: front.handlers.waiting == 0)
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        flood.cancel()
        await channel.close()


@on_both_loops
async def test_unknown_methods_are_unimplemented() -> None:
    async with serving() as front, front.channel() as channel:
        for path in ("/test/other", "/other/echo", "/", "/test/écho"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path)(b"")
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert caught.value.details() == "Method not found!"


@on_both_loops
async def test_a_client_may_wait_for_the_server_to_come() -> None:
    async with serving() as front:
        port = front.port
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.initial_reconnect_backoff_ms", 100)]
    )
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel, "echo")(b"")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        waiting = asyncio.ensure_future(unary(channel, "echo")(b"x", wait_for_ready=True))
        again = await begin(Handlers(), port)
        assert await waiting == b"x"
        await again.server.stop(0)


@on_both_loops
async def test_a_thousand_channels_one_after_the_other() -> None:
    def talk(address: str) -> None:
        for index in range(1000):
            options = [("grpc.use_local_subchannel_pool", 1), *UNLIMITED]
            with grpc.insecure_channel(address, options=options) as channel:
                body = str(index).encode()
                assert channel.unary_unary("/test/echo")(body) == body

    async with serving() as front:
        await asyncio.to_thread(talk, front.address)
        await eventually(lambda: not front.connections)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("listens", "calls"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("[::1]", ["[::1]"]),
        ("[::]", ["[::1]", "127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
    ],
)
@on_both_loops
async def test_it_listens_where_it_is_told_to(listens: str, calls: list[str]) -> None:
    if ":" in listens and not has_ipv6():
        pytest.skip("this machine has no address of IPv6")
    peers: list[str] = []

    async def own(context: grpc.aio.ServicerContext) -> bytes:
        peers.append(context.peer())
        return await context.read()

    server = GrpcServer(LIMIT)
    server.add_raw("/test/own", own)
    port = server.add_insecure_port(f"{listens}:0")
    await server.start()
    for host in calls:
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            assert await unary(channel, "own")(b"x") == b"x"
        kind = "ipv6:[" if listens.startswith("[") else "ipv4:"
        assert peers[-1].startswith(kind)
    await server.stop(0)
