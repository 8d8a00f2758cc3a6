"""A container engine that a test can take away: a proxy before the real one's socket."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class EngineProxy:
    """Passes everything on, until told otherwise.

    Attributes:
        url: of the proxy.
    """

    def __init__(self, path: Path) -> None:
        """Use `engine_proxy`."""
        self.url = f"unix://{path}"
        self._path = path
        self._target = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self._passing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def restore(self) -> None:
        """Has it answer again."""
        self._passing.set()
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def cut(self) -> None:
        """Ends all connections and takes no more, as an engine that was stopped."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def stall(self) -> None:
        """Keeps all connections and passes nothing on, as an engine that hangs."""
        self._passing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            theirs = await asyncio.open_unix_connection(self._target.removeprefix("unix://"))
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(reader, theirs[1]))
                    both.create_task(self._pass(theirs[0], writer))
            finally:
                theirs[1].close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # Cut, or an end hung up: nothing to say to either.
            pass
        finally:
            writer.close()
            self._open.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def engine_proxy(path: Path) -> AsyncIterator[EngineProxy]:
    """A proxy that passes on, until the block ends."""
    made = EngineProxy(path)
    await made.restore()
    try:
        yield made
    finally:
        await made.cut()
