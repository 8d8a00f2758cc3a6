"""A small HTTP server for scrapes and health checks: GET and HEAD, one request per connection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.runtime import ports

log = structlog.get_logger()

REQUEST_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
"""The metrics of 10,000 deployments are 57 MB and take 3 s to put into words."""

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 64

TEXT = "text/plain; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


MakePage = Callable[[], Awaitable[Page]]
MakeAcceptedPage = Callable[[str], Awaitable[Page]]
"""Makes a page in one of several forms, by the request's Accept header; empty if it has none."""

FindPage = Callable[[str], MakePage | None]
"""Says how to make the page of a request's target, which is as it came; None: there is none."""


class HttpServer:
    """Serves pages by path.

    Attributes:
        address: where it listens, once started.
    """

    def __init__(
        self,
        pages: dict[str, MakePage],
        find: FindPage | None = None,
        accepted: dict[str, MakeAcceptedPage] | None = None,
    ) -> None:
        """Prepares it.

        Args:
            pages: by path.
            find: asked for what is not among them.
            accepted: pages of several forms, by path.
        """
        self._pages = pages
        self._accepted = accepted or {}
        self._find = find
        self._open = 0
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self, address: str) -> None:
        """Listens.

        Raises:
            ports.AddressError: if the address cannot be listened on.
        """
        ports.check_free(address)
        host, port = ports.split(address)
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST_BYTES)
        bound_port = self._server.sockets[0].getsockname()[1]
        self.address = f"{address.rpartition(':')[0]}:{bound_port}"

    async def stop(self) -> None:
        """Stops listening; answers under way are finished or cut off by their timeout."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if self._open > MAX_CONNECTIONS:
                    page, head = Page(503, b"too many connections\n"), False
                else:
                    page, head = await self._answer(reader)
                writer.write(_encode(page, head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            log.debug("http.connection_lost", error=str(error) or type(error).__name__)
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Page(400, b"the request is too long\n"), False
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return Page(400, b"not an HTTP request\n"), False
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return Page(405, b"only GET and HEAD are served\n"), False
        path = target.partition("?")[0]
        if path in self._accepted:
            return await self._accepted[path](_accept(head)), method == "HEAD"
        make = self._pages.get(path)
        if make is None and self._find is not None:
            make = self._find(target)
        if make is None:
            known = ", ".join(sorted(self._pages.keys() | self._accepted.keys()))
            return Page(404, f"not found; there are: {known}\n".encode()), method == "HEAD"
        return await make(), method == "HEAD"


def _accept(head: bytes) -> str:
    """The Accept header of a request; several are one list (RFC 9110, section 5.3)."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    fields = (line.partition(":") for line in lines)
    return ",".join(value.strip() for name, _, value in fields if name.lower() == "accept")


def _encode(page: Page, head_only: bool) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in page.headers)
    head = (
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{more}"
        "Connection: close\r\n\r\n"
    ).encode()
    return head if head_only else head + page.body
