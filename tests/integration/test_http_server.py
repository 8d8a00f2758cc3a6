"""The small HTTP server of metrics, asked over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.metrics.http_server import HttpServer, Page
from services.runtime import ports


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server with one page of several forms and one of a single form."""

    async def echo(accept: str) -> Page:
        return Page(200, accept.encode(), "text/plain")

    async def plain() -> Page:
        return Page(200, b"plain")

    server = HttpServer({"/plain": plain}, accepted={"/echo": echo})
    await server.start("127.0.0.1:0")
    try:
        yield server.address
    finally:
        await server.stop()


async def asked(address: str, *lines: str) -> str:
    """The whole answer to a request."""
    reader, writer = await asyncio.open_connection(*ports.split(address))
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ([], ""),
        (["Accept: a/b"], "a/b"),
        (["aCCept:a/b;q=0.5"], "a/b;q=0.5"),
        (["Accept: a/b", "Host: x", "Accept:  c/d "], "a/b,c/d"),
        (["X-Accept: a/b", "Accept-Encoding: gzip"], ""),
        (["Accept"], ""),
        (["no header at all"], ""),
    ],
)
async def test_a_page_of_several_forms_is_told_what_is_accepted(
    address: str, headers: list[str], seen: str
) -> None:
    answer = await asked(address, "GET /echo?x=1 HTTP/1.1", *headers)
    assert answer.startswith("HTTP/1.1 200 ")
    assert answer.partition("\r\n\r\n")[2] == seen


async def test_the_head_of_such_a_page_has_no_body(address: str) -> None:
    answer = await asked(address, "HEAD /echo HTTP/1.1", "Accept: a/b")
    assert "Content-Length: 3\r\n" in answer
    assert answer.endswith("\r\n\r\n")


async def test_what_is_not_there_is_told_with_all_that_is(address: str) -> None:
    answer = await asked(address, "GET /metric HTTP/1.1")
    assert answer.startswith("HTTP/1.1 404 ")
    assert "there are: /echo, /plain" in answer


async def test_headers_without_end_are_refused(address: str) -> None:
    answer = await asked(address, "GET /echo HTTP/1.1", "Accept: " + "a" * 17_000)
    assert answer.startswith("HTTP/1.1 400 ")
