"""The event loop's own gRPC server and clients that are no clients of gRPC, or broken ones."""

import asyncio
import random
import resource
import shutil
import socket
import struct
from collections.abc import Iterator

import pytest
import structlog
import uvloop

from services.wire.http2 import frames as h2
from services.wire.http2.server import connection as connection_module
from tests.support.eventually import eventually
from tests.support.grpc_front import on_both_loops, serving, unary
from tests.support.raw_http2 import raw_client


@pytest.fixture
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "TICK_S", 0.2)


@pytest.mark.usefixtures("_quick_ticks")
@on_both_loops
async def test_one_that_does_not_finish_its_greeting_is_hung_up_on() -> None:
    async with serving() as front:
        for words in (b"", h2.PREFACE[:10], h2.PREFACE, h2.PREFACE + h2.settings({})[:5]):
            async with raw_client(front.port) as client:
                client.send(words)
                await client.end()
        await eventually(lambda: not front.connections)


@pytest.fixture
def _ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    # A client that is to answer within a tick has more time.
    monkeypatch.setattr(connection_module, "TICK_S", 0.6)


@pytest.mark.usefixtures("_ticks")
@on_both_loops
async def test_a_silent_client_is_asked_for_a_sign_of_life_and_dropped_without_one() -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        client.call(1, "/test/wait")
        await eventually(lambda: front.handlers.waiting == 1)
        for _ in range(3):
            _, flags, _, opaque = await client.until(h2.PING)
            assert not flags & h2.ACK
            client.send(h2.ping(opaque, h2.ACK))
        assert front.handlers.waiting == 1
        await client.end()
        await eventually(lambda: front.handlers.cancelled == 1)


@pytest.mark.usefixtures("_quick_ticks")
@on_both_loops
async def test_a_client_that_takes_a_large_reply_slowly_is_not_silent() -> None:
    size = 6_000_000
    async with serving() as front, raw_client(front.port, takes_bytes=64 * 1024) as client:
        client.greet(initial_window_size=h2.MAX_WINDOW_BYTES)
        client.send(h2.window_update(0, 2**30))
        client.call(1, "/test/flood", b"%d" % size)
        got = 0
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        while got < size:
            got += len((await client.until(h2.DATA, 1))[3])
            # Much too slow to be done within the three ticks that a silent one is given.
            while (clock.time() - began_s) < got / size * 2.0:
                await asyncio.sleep(0.01)
        assert front.handlers.waiting == 1


@on_both_loops
async def test_pings_of_a_client_are_answered_however_many() -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        for number in range(500):
            client.send(h2.ping(number.to_bytes(8, "big")))
            _, flags, _, opaque = await client.until(h2.PING)
            assert flags & h2.ACK
            assert int.from_bytes(opaque, "big") == number
        client.call(1, "/test/echo", b"x")
        assert (await client.until(h2.DATA, 1))[3].endswith(b"x")


@on_both_loops
async def test_a_header_block_that_comes_in_drops_is_one() -> None:
    async with serving() as front, raw_client(front.port) as client, front.channel() as channel:
        client.greet()
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/test/echo"),
            (b"content-type", b"application/grpc"),
        ]
        block = h2.literal_fields(fields)
        whole = h2.frame_header(1, h2.HEADERS, 0, 1) + block[:1]
        for index in range(1, len(block)):
            flags = h2.END_HEADERS if index == len(block) - 1 else 0
            whole += h2.frame_header(1, h2.CONTINUATION, flags, 1) + block[index : index + 1]
        for index in range(len(whole)):
            client.send(whole[index : index + 1])
            await client.writer.drain()
            if index % 100 == 0:
                assert await unary(channel, "echo")(b"") == b""
        client.data(1, b"\0\0\0\0\1x", h2.END_STREAM)
        assert (await client.until(h2.DATA, 1))[3] == b"\0\0\0\0\1x"


@on_both_loops
async def test_an_endless_header_block_ends_the_connection() -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        client.send(h2.frame_header(1, h2.HEADERS, 0, 1) + b"\0")
        client.send((h2.frame_header(0, h2.CONTINUATION, 0, 1)) * 40_000)
        _, _, _, payload = await client.until(h2.GOAWAY)
        assert int.from_bytes(payload[4:8], "big") == h2.ENHANCE_YOUR_CALM
        await client.end()


@on_both_loops
async def test_what_is_no_http2_is_hung_up_on() -> None:
    dice = random.Random(1)
    hello = bytes.fromhex("160301020001000f")
    async with serving() as front:
        for words in (hello, b"\0" * 100, dice.randbytes(10_000), b"QUIT\r\n", b"PRI * HTTP/1.0"):
            async with raw_client(front.port) as client:
                client.send(words)
                answer = await client._reader.read(65_536)
                assert (b"This port speaks gRPC" in answer) is words[:1].isalpha()
                assert (await client._reader.read()) == b""
        await eventually(lambda: not front.connections)


@on_both_loops
async def test_clients_that_break_the_protocol_fill_no_log() -> None:
    async with serving() as front:
        with structlog.testing.capture_logs() as lines:
            async with raw_client(front.port) as client:
                client.send(b"QUIT\r\n")
                await client._reader.read()
            connections = front.server._connections
            now_s = connections._broken_logged_s
            for _ in range(10):
                connections.note_broken("b", h2.ProtocolError("nonsense"), now_s)
            later_s = now_s + connection_module.BROKEN_LOG_S
            connections.note_broken("c", h2.ProtocolError("more of it"), later_s)
        told = [(line["event"], line["clients"]) for line in lines]
        assert told == [("grpc.protocol_broken", 1), ("grpc.protocol_broken", 11)]


@on_both_loops
async def test_garbage_after_a_greeting_ends_the_connection_and_nothing_else() -> None:
    dice = random.Random(2)
    async with serving() as front, front.channel() as channel:
        for _ in range(200):
            async with raw_client(front.port) as client:
                client.greet()
                client.call(1, "/test/wait")
                if dice.random() < 0.5:
                    client.send(dice.randbytes(dice.randrange(1, 3000)))
                else:
                    for _ in range(20):
                        size = dice.randrange(30)
                        head = h2.frame_header(
                            size, dice.randrange(11), dice.randrange(256), dice.randrange(8)
                        )
                        client.send(head + dice.randbytes(size))
                await client.writer.drain()
        assert await unary(channel, "echo")(b"x") == b"x"
        await eventually(lambda: len(front.connections) == 1 and not front.handlers.waiting)


@on_both_loops
async def test_thousands_of_connections_come_and_go() -> None:
    def come_and_go(port: int) -> None:
        greeting = h2.PREFACE + h2.settings({})
        for index in range(3000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                if index % 3:
                    client.sendall(greeting[: index % 60])
                if index % 2:
                    # Closes with a reset.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serving() as front, front.channel() as channel:
        await asyncio.to_thread(come_and_go, front.port)
        assert await unary(channel, "echo")(b"x") == b"x"
        await eventually(lambda: len(front.connections) == 1)


@on_both_loops
async def test_a_client_that_resets_calls_rapidly_leaves_none() -> None:
    async with serving() as front, raw_client(front.port) as client:
        client.greet()
        for number in range(1, 20_001, 2):
            client.call(number, "/test/wait", b"")
            client.send(h2.rst_stream(number, h2.CANCEL))
            if number % 100 == 1:
                await client.writer.drain()
        client.call(20_001, "/test/echo", b"x")
        await client.until(h2.DATA, 20_001)
        await eventually(lambda: front.handlers.waiting == 0)
        await eventually(lambda: not front.connections[0].calls)
        assert not front.connections[0].streams.open


@pytest.fixture
def _few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_few_files")
def test_a_server_out_of_files_serves_those_that_it_has_and_others_later() -> None:
    # asyncio's own loop tries again each second, a thousand times at once; services run on uvloop.
    uvloop.run(run_out_of_files())


async def run_out_of_files() -> None:
    async with serving() as front, front.channel() as channel:
        assert await unary(channel, "echo")(b"x") == b"x"
        clients = [socket.socket() for _ in range(30)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(client.fileno() for client in clients)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", front.port))
        await eventually(lambda: all(hung_up(client) for client in clients))
        assert await unary(channel, "echo")(b"x") == b"x"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            client.close()
        async with raw_client(front.port) as late:
            late.greet()
            late.call(1, "/test/echo", b"late")
            assert (await late.until(h2.DATA, 1))[3].endswith(b"late")


def hung_up(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


async def run(*command: str) -> tuple[int, str]:
    """Runs a program that may not be there; returns its exit code and what it said."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: Debian has it in curl, nghttp2-client")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(120):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")


GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")


@on_both_loops
async def test_h2load_gets_every_answer(tmp_path: object) -> None:
    body = f"{tmp_path}/body"
    with open(body, "wb") as file:
        file.write(b"\0\0\0\1\0" + bytes(256))
    async with serving() as front:
        url = f"http://{front.address}/test/echo"
        code, said = await run(
            "h2load", "-n", "20000", "-c", "20", "-m", "50", "-d", body, *GRPC, url
        )
        assert code == 0
        assert "20000 succeeded, 0 failed, 0 errored" in said
        await eventually(lambda: not front.connections)


@on_both_loops
async def test_nghttp_understands_every_frame(tmp_path: object) -> None:
    body = f"{tmp_path}/body"
    with open(body, "wb") as file:
        file.write(b"\0\0\0\0\5hello")
    async with serving() as front:
        url = f"http://{front.address}/test/echo"
        code, said = await run("nghttp", "-v", "-d", body, *GRPC, url)
        assert code == 0
        assert ":status: 200" in said
        assert "grpc-status: 0" in said
        assert "hello" in said
        _, said = await run("nghttp", "-v", url)
        assert ":status: 415" in said


@on_both_loops
async def test_curl_is_told_what_this_port_speaks() -> None:
    async with serving() as front:
        url = f"http://{front.address}/test/echo"
        for method in ("GET", "POST", "PUT"):
            _, said = await run("curl", "-sS", "-i", "-X", method, url)
            assert "HTTP/1.1 505" in said
            assert "This port speaks gRPC: HTTP/2 without TLS." in said
        _, said = await run("curl", "-sS", "-i", "--http2", url)
        assert "This port speaks gRPC" in said
        _, said = await run("curl", "-sS", "-i", "--http2-prior-knowledge", url)
        assert "HTTP/2 415" in said
        code, said = await run("curl", "-sS", f"https://{front.address}/")
        assert code == 35, "no TLS"
