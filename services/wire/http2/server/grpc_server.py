"""A gRPC server on the event loop: it stands where `grpc.aio.server` would."""

import asyncio
import socket

import structlog

from services.wire.http2.server.connection import Connection, Connections
from services.wire.http2.server.methods import Methods

log = structlog.get_logger()

BACKLOG = 1024
"""Connections that wait to be accepted."""

CLOSE_S = 1.0
"""What a connection may take to close, and a handler that is broken off to end."""

MAX_METADATA_BYTES = 16 * 1024
"""Largest set of header fields of a call, as grpcio has it."""


class GrpcServer(Methods):
    """Serves methods on one address, over plain HTTP/2."""

    def __init__(self, max_message_bytes: int) -> None:
        """Listens nowhere yet.

        Args:
            max_message_bytes: largest message of a client.
        """
        super().__init__()
        self._max_message_bytes = max_message_bytes
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._connections = Connections()

    def add_insecure_port(self, address: str) -> int:
        """Takes an address; connections wait there until `start`.

        Args:
            address: `host:port`; port 0 lets the kernel choose.

        Returns:
            The port.

        Raises:
            RuntimeError: if it cannot be listened on.
        """
        host, _, port_text = address.rpartition(":")
        port = int(port_text)
        try:
            found = socket.getaddrinfo(
                host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, where in found:
                # A name such as localhost may stand for several; they share the port.
                made = socket.create_server(
                    (where[0], port),
                    family=family,
                    backlog=BACKLOG,
                    # As in grpcio, `::` stands for all addresses of both kinds.
                    dualstack_ipv6=where[0] == "::" and socket.has_dualstack_ipv6(),
                )
                self._sockets.append(made)
                port = made.getsockname()[1]
        except OSError as error:
            if not self._sockets:
                raise RuntimeError(error.strerror or str(error)) from error
            log.warning("grpc.address_not_taken", address=address, error=str(error))
        return port

    async def start(self) -> None:
        """Begins to take connections."""
        assert self._sockets, "add_insecure_port comes first"
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            server = await loop.create_server(self._taken, sock=listening, backlog=BACKLOG)
            self._servers.append(server)

    async def stop(self, grace_s: float | None) -> None:
        """Takes no more connections and calls, and waits until those under way have ended.

        Args:
            grace_s: for so long at most; what has not ended then is broken off. None is 0.
        """
        self._connections.stopping = True
        for server in self._servers:
            server.close()
        for listening in self._sockets[len(self._servers) :]:
            # It was never begun with.
            listening.close()
        if grace_s:
            for connection in list(self._connections.open):
                connection.drain()
            await self._closed(grace_s)
        broken_off = [call.task for c in self._connections.open for call in c.calls if call.task]
        for connection in list(self._connections.open):
            connection.close()
        await self._closed(CLOSE_S)
        for connection in list(self._connections.open):
            # Its client reads nothing.
            connection.abort()
        await self._closed(CLOSE_S)
        if broken_off:
            # They may still use what the process is about to take down.
            await asyncio.wait(broken_off, timeout=CLOSE_S)

    def _taken(self) -> Connection:
        return Connection(self, self._max_message_bytes, MAX_METADATA_BYTES, self._connections)

    async def _closed(self, timeout_s: float) -> None:
        """Waits until no connection is left, but no longer than so many seconds."""
        if self._connections.open:
            waiting = [connection.closed for connection in self._connections.open]
            await asyncio.wait(waiting, timeout=timeout_s)
