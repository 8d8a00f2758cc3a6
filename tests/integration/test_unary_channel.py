"""The agent's own gRPC client against grpc's own server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from services.node_agent.triton.triton_client import MAX_METADATA_BYTES, TritonClient, TritonError
from services.wire.http2.client import unary_channel
from services.wire.http2.client.replies import INTERNAL, UNAVAILABLE
from services.wire.http2.client.unary_channel import CallFailedError, UnaryChannel
from services.wire.http2.frames import literal_fields
from services.wire.triton_stubs import service_pb2 as triton
from tests.support.eventually import eventually

LIMIT = 9 * 1024 * 1024


class Answers(grpc.GenericRpcHandler):
    """A server whose method says what it does: `/test/echo`, `/test/fail`, `/test/wait`."""

    def __init__(self) -> None:
        self.waiting = 0
        self.cancelled = 0
        self.metadata: dict[str, str] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = getattr(self, details.method.rpartition("/")[2], None)
        return grpc.unary_unary_rpc_method_handler(method) if method else None

    async def echo(self, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        return body

    async def fail(self, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        number, _, text = body.decode().partition(" ")
        status = next(status for status in grpc.StatusCode if status.value[0] == int(number))
        await context.abort(status, text)
        raise AssertionError("abort raises")

    async def wait(self, _: bytes, __: grpc.aio.ServicerContext) -> bytes:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return b""


@pytest.fixture
def answers() -> Answers:
    return Answers()


async def serve(answers: Answers, port: int = 0, **options: int) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", LIMIT),
            ("grpc.max_send_message_length", -1),
            *((f"grpc.{name}", value) for name, value in options.items()),
        ]
    )
    server.add_generic_rpc_handlers((answers,))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port


@pytest.fixture
async def server(answers: Answers) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    made = await serve(answers)
    yield made
    await made[0].stop(0)


@pytest.fixture
async def channel(server: tuple[grpc.aio.Server, int]) -> AsyncIterator[UnaryChannel]:
    made = UnaryChannel(f"127.0.0.1:{server[1]}", LIMIT, MAX_METADATA_BYTES)
    yield made
    await made.close()


async def call(channel: UnaryChannel, method: str, body: bytes = b"") -> bytes:
    return await channel.call(channel.header_block(f"/test/{method}"), body)


class Mute(asyncio.Protocol):
    """A server that says at most a few words to whoever speaks to it."""

    def __init__(self, words: bytes, hangs_up: bool) -> None:
        self.words = words
        self.hangs_up = hangs_up
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, _: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.words)
        if self.hangs_up:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None


@asynccontextmanager
async def mute_server(words: bytes, hangs_up: bool = False) -> AsyncIterator[str]:
    mute = Mute(words, hangs_up)
    server = await asyncio.get_running_loop().create_server(lambda: mute, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await eventually(lambda: mute.transport is None)


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_530, 65_531, 600_000, 8 * 1024 * 1024])
async def test_bodies_of_every_size_go_both_ways(channel: UnaryChannel, size: int) -> None:
    body = (b"0123456789abcde" * (size // 15 + 1))[:size]
    assert await call(channel, "echo", body) == body


async def test_two_hundred_calls_at_once_get_their_own_replies(channel: UnaryChannel) -> None:
    bodies = [str(index).encode() * (index * 37) for index in range(200)]
    assert await asyncio.gather(*(call(channel, "echo", body) for body in bodies)) == bodies


async def test_calls_wait_where_the_server_takes_few_at_once(answers: Answers) -> None:
    server, port = await serve(answers, max_concurrent_streams=3)
    channel = UnaryChannel(f"127.0.0.1:{port}", LIMIT, MAX_METADATA_BYTES)
    bodies = [bytes([index]) * 100_000 for index in range(50)]
    assert await asyncio.gather(*(call(channel, "echo", body) for body in bodies)) == bodies
    await channel.close()
    await server.stop(0)


@pytest.mark.parametrize("code", range(1, 17))
async def test_every_status_comes_with_its_text(channel: UnaryChannel, code: int) -> None:
    text = "100 % of ü\nand “more”"
    with pytest.raises(CallFailedError) as caught:
        await call(channel, "fail", f"{code} {text}".encode())
    assert (caught.value.failure.code, caught.value.failure.message) == (code, text)


async def test_a_text_as_long_as_a_stack_trace_comes_whole(channel: UnaryChannel) -> None:
    text = "é" * 60_000
    with pytest.raises(CallFailedError) as caught:
        await call(channel, "fail", f"{INTERNAL} {text}".encode())
    assert caught.value.failure.message == text


async def test_a_reply_over_the_limit_fails_and_the_next_call_works(server: object) -> None:
    assert isinstance(server, tuple)
    channel = UnaryChannel(f"127.0.0.1:{server[1]}", 1000, MAX_METADATA_BYTES)
    with pytest.raises(CallFailedError, match="1001 bytes"):
        await call(channel, "echo", bytes(1001))
    assert await call(channel, "echo", bytes(1000)) == bytes(1000)
    await channel.close()


async def test_metadata_arrives(channel: UnaryChannel, answers: Answers) -> None:
    headers = channel.header_block("/test/echo") + literal_fields([(b"traceparent", b"00-1-2-01")])
    await channel.call(headers, b"")
    assert answers.metadata["traceparent"] == "00-1-2-01"


async def test_a_cancelled_call_ends_at_the_server(channel: UnaryChannel, answers: Answers) -> None:
    waiting = asyncio.ensure_future(call(channel, "wait"))
    await eventually(lambda: answers.waiting == 1)
    waiting.cancel()
    await eventually(lambda: answers.cancelled == 1)
    assert await call(channel, "echo", b"next") == b"next"


async def test_calls_under_way_fail_when_the_server_dies_and_later_ones_find_the_next(
    answers: Answers,
) -> None:
    server, port = await serve(answers)
    channel = UnaryChannel(f"127.0.0.1:{port}", LIMIT, MAX_METADATA_BYTES)
    waiting = [asyncio.ensure_future(call(channel, "wait")) for _ in range(5)]
    await eventually(lambda: answers.waiting == 5)
    await server.stop(0)
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, CallFailedError)
    with pytest.raises(CallFailedError, match="failed to connect") as caught:
        await call(channel, "echo")
    assert caught.value.failure.code == UNAVAILABLE
    server, _ = await serve(answers, port)
    assert await call(channel, "echo", b"again") == b"again"
    await channel.close()
    await server.stop(0)


async def test_a_connection_that_breaks_fails_its_calls_as_unavailable() -> None:
    async with mute_server(b"", hangs_up=True) as address:
        channel = UnaryChannel(address, LIMIT, MAX_METADATA_BYTES)
        with pytest.raises(CallFailedError, match="connection was lost") as caught:
            await call(channel, "echo")
    assert caught.value.failure.code == UNAVAILABLE


async def test_what_is_no_http2_fails_as_unavailable() -> None:
    async with mute_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        channel = UnaryChannel(address, LIMIT, MAX_METADATA_BYTES)
        with pytest.raises(CallFailedError, match="broke the protocol") as caught:
            await call(channel, "echo")
    assert caught.value.failure.code == UNAVAILABLE


async def test_a_server_that_drains_finishes_its_calls_and_the_next_ones_go_elsewhere(
    answers: Answers,
) -> None:
    server, port = await serve(answers)
    channel = UnaryChannel(f"127.0.0.1:{port}", LIMIT, MAX_METADATA_BYTES)
    waiting = asyncio.ensure_future(call(channel, "wait"))
    await eventually(lambda: answers.waiting == 1)
    draining = asyncio.ensure_future(server.stop(60))
    await eventually(lambda: channel._connection and not channel._connection.calls.accepting)
    other, _ = await serve(answers, port)
    assert await call(channel, "echo", b"elsewhere") == b"elsewhere"
    assert not waiting.done()
    waiting.cancel()
    await draining
    await channel.close()
    await other.stop(0)


async def test_a_frozen_server_is_found_out_by_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unary_channel, "KEEPALIVE_TICK_S", 0.05)
    async with mute_server(b"") as address:
        channel = UnaryChannel(address, LIMIT, MAX_METADATA_BYTES)
        with pytest.raises(CallFailedError, match="no sign of life") as caught:
            await call(channel, "echo")
    assert caught.value.failure.code == UNAVAILABLE


async def test_a_slow_call_is_not_taken_for_a_frozen_server(
    channel: UnaryChannel, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server in this very process answers in that time, also where others have the cores.
    monkeypatch.setattr(unary_channel, "KEEPALIVE_TICK_S", 1.0)
    waiting = asyncio.ensure_future(call(channel, "wait"))
    await eventually(lambda: answers.waiting == 1)
    done, _ = await asyncio.wait({waiting}, timeout=6)
    assert not done
    assert await call(channel, "echo", b"alive") == b"alive"
    waiting.cancel()


async def test_a_closed_channel_fails_its_calls(channel: UnaryChannel, answers: Answers) -> None:
    waiting = asyncio.ensure_future(call(channel, "wait"))
    await eventually(lambda: answers.waiting == 1)
    await channel.close()
    with pytest.raises(CallFailedError, match="closed"):
        await waiting
    with pytest.raises(CallFailedError, match="closed"):
        await call(channel, "echo")


async def test_a_channel_that_is_closed_while_it_connects_leaves_nothing(
    channel: UnaryChannel,
) -> None:
    calling = asyncio.ensure_future(call(channel, "echo"))
    await asyncio.sleep(0)
    await channel.close()
    with pytest.raises(CallFailedError) as caught:
        await calling
    assert caught.value.failure.code == UNAVAILABLE
    assert not channel._alive


async def test_a_question_that_is_not_answered_in_time_fails_as_late() -> None:
    async with mute_server(b"") as address:
        client = TritonClient(address, "model")
        with pytest.raises(TritonError) as caught:
            await client._ask("ModelReady", triton.ModelReadyRequest(), timeout_s=0.05)
        await client.close()
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
