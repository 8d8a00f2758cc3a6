"""The probe of health checks against real servers."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import grpc.aio
import pytest

from services.runtime.health import Health
from services.runtime.health_probe import NotServingError, probe
from tests.support.free_port import free_address


async def probed(address: str, timeout_s: float = 30.0, service: str = "") -> str:
    """What is wrong with what listens at an address; empty if it serves."""
    try:
        await asyncio.to_thread(probe, address, timeout_s, service)
    except NotServingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_grpc_server_is_asked_by_its_health_service(kind: str, tmp_path: Path) -> None:
    server = grpc.aio.server()
    health = Health(server, [])
    address = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
    port = server.add_insecure_port(address)
    address = address if kind == "unix" else f"127.0.0.1:{port}"
    await server.start()
    try:
        await health.set_serving(False)
        assert "NOT_SERVING" in await probed(address)
        await health.set_serving(True)
        assert not await probed(address)
    finally:
        await server.stop(0)


async def test_a_grpc_server_without_health_does_not_say_that_it_serves() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert "has no health service" in await probed(f"127.0.0.1:{port}")
    finally:
        await server.stop(0)


async def test_the_command_asks_after_a_service_too() -> None:
    server = grpc.aio.server()
    health = Health(server, ["a.Service"])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        await health.set_serving(True)
        await health.set_service("a.Service", False)
        codes = []
        for words in ((), ("--service", "a.Service")):
            command = (sys.executable, "-m", "forebay.cli.main", "health", address, *words)
            command += ("--timeout-s", "30")
            done = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            codes.append(await done.wait())
        assert codes == [0, 4]
    finally:
        await server.stop(0)


async def test_one_service_of_a_server_is_asked_after_by_its_name() -> None:
    server = grpc.aio.server()
    health = Health(server, ["a.Service"])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        await health.set_serving(True)
        assert not await probed(address, service="a.Service")
        await health.set_service("a.Service", False)
        assert "NOT_SERVING" in await probed(address, service="a.Service")
        assert not await probed(address)
        assert "does not serve b.Service" in await probed(address, service="b.Service")
    finally:
        await server.stop(0)


@pytest.mark.parametrize(("status", "serves"), [("200 OK", True), ("503 No", False)])
async def test_a_page_says_by_its_status(status: str, serves: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        said = await probed(f"http://127.0.0.1:{port}/healthz")
    assert (said == "") == serves


async def test_silence_is_no_health() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        port = nobody_accepts.getsockname()[1]
        assert "does not answer" in await probed(f"127.0.0.1:{port}", 0.3)
        assert "does not answer" in await probed(f"http://127.0.0.1:{port}/", 0.3)


@pytest.mark.parametrize(
    ("command", "code"),
    [(["-m", "services.runtime.health_probe"], 1), (["-m", "forebay.cli.main", "health"], 4)],
)
def test_commands_say_by_their_exit_code_that_nobody_is_there(
    command: list[str], code: int
) -> None:
    done = subprocess.run(
        [sys.executable, *command, free_address()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert "does not answer" in done.stderr
