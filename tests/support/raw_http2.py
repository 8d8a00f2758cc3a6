"""A client of HTTP/2 that sends and hears single frames."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.wire.http2 import frames as h2

Frame = tuple[int, int, int, bytes]


class RawClient:
    """One connection.

    Attributes:
        heard: every frame that came, in order.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard: list[Frame] = []
        self._reader = reader
        self.writer = writer
        self._frames = h2.FrameReader(2**24)
        self._passed = 0

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    def greet(self, **settings: int) -> None:
        values = {getattr(h2, name.upper()): value for name, value in settings.items()}
        self.send(h2.PREFACE, h2.settings(values), h2.SETTINGS_ACK)

    def call(
        self, stream: int, path: str, body: bytes | None = b"", *more: tuple[bytes, bytes]
    ) -> None:
        """Begins a call; with a body, also sends its only message and its end."""
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *more,
        ]
        block = h2.literal_fields(fields)
        self.send(h2.frame_header(len(block), h2.HEADERS, h2.END_HEADERS, stream), block)
        if body is not None:
            self.data(stream, b"\0" + len(body).to_bytes(4, "big") + body, h2.END_STREAM)

    def data(self, stream: int, payload: bytes, flags: int = 0) -> None:
        self.send(h2.frame_header(len(payload), h2.DATA, flags, stream), payload)

    async def until(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind; what came before it is passed.

        Raises:
            EOFError: if the server hangs up instead.
        """
        async with asyncio.timeout(30):
            while True:
                for frame in self.heard[self._passed :]:
                    self._passed += 1
                    if frame[0] == kind and stream in (None, frame[2]):
                        return frame
                await self._hear()

    async def end(self) -> None:
        """Waits until the server hangs up."""
        async with asyncio.timeout(30):
            try:
                while True:
                    await self._hear()
            except (EOFError, ConnectionResetError):
                return

    async def _hear(self) -> None:
        data = await self._reader.read(65_536)
        if not data:
            raise EOFError
        self.heard += self._frames.feed(data)


@asynccontextmanager
async def raw_client(port: int, takes_bytes: int | None = None) -> AsyncIterator[RawClient]:
    """A connection on which nothing was said.

    Args:
        port: on this machine.
        takes_bytes: how much of what nobody reads its system keeps, about.
    """
    client = socket.socket()
    client.setblocking(False)
    if takes_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=client)
    except BaseException:
        client.close()
        raise
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
