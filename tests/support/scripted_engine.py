"""A Unix socket before a real engine, which can be made slow, cut, or answer of its own.

It passes whole requests on: one for each connection, so that rules see method and path.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some requests.

    Attributes:
        word: part of `METHOD /path?query` of those it is about.
        delay_s: how long they wait before they are passed on.
        status: answered instead of the engine's answer, if set.
        body: of that answer; a text stands for the engine's JSON with that message.
        times: how often; None for ever.
    """

    word: str
    delay_s: float = 0.0
    status: int | None = None
    body: str | bytes = ""
    times: int | None = None


class ScriptedEngine:
    """The socket and its rules."""

    def __init__(self, path: Path, real: str) -> None:
        """Listens nowhere yet.

        Args:
            path: of the socket.
            real: path of the engine's.
        """
        self.url = f"unix://{path}"
        self._path = path
        self._real = real
        self._rules: list[tuple[Rule, list[int]]] = []
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self.seen: list[str] = []

    def add(self, rule: Rule) -> None:
        """Adds a rule; the first that fits counts."""
        self._rules.append((rule, [0]))

    def clear(self) -> None:
        """Removes all rules."""
        self._rules.clear()

    async def listen(self) -> None:
        """Listens, as an engine that has come up."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))

    async def cut(self) -> None:
        """Cuts every connection and listens no more, as an engine that is down."""
        if self._server is not None:
            self._server.close()
            for link in list(self._links):
                link.transport.abort()
            await self._server.wait_closed()
            self._server = None
        self._path.unlink(missing_ok=True)

    def _rule(self, line: str) -> Rule | None:
        for rule, used in self._rules:
            if rule.word in line and (rule.times is None or used[0] < rule.times):
                used[0] += 1
                return rule
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._one(reader, writer)
        finally:
            self._links.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        self.seen.append(line.rpartition(" ")[0])
        lengths = [h for h in headers if h.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0].partition(":")[2])) if lengths else b""
        rule = self._rule(line)
        if rule is not None:
            await asyncio.sleep(rule.delay_s)
            if rule.status is not None:
                writer.write(_answer(rule))
                await writer.drain()
                return
        kept = [h for h in headers if h and not h.lower().startswith("connection:")]
        again = "\r\n".join([line, *kept, "Connection: close", "", ""]).encode()
        there_reader, there_writer = await asyncio.open_unix_connection(self._real)
        self._links.add(there_writer)
        try:
            there_writer.write(again + body)
            await asyncio.wait(
                [
                    asyncio.ensure_future(_copy(there_reader, writer)),
                    gone := asyncio.ensure_future(reader.read(1)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
            gone.cancel()
        finally:
            self._links.discard(there_writer)
            there_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()


def _answer(rule: Rule) -> bytes:
    body = rule.body
    if isinstance(body, str):
        body = json.dumps({"message": body}).encode()
    return (
        f"HTTP/1.1 {rule.status} Scripted\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


@contextlib.asynccontextmanager
async def scripted_engine(path: Path, real: str) -> AsyncIterator[ScriptedEngine]:
    """A scripted engine that listens until the block ends."""
    engine = ScriptedEngine(path, real)
    await engine.listen()
    try:
        yield engine
    finally:
        await engine.cut()
