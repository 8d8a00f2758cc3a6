"""Unary gRPC calls to one server, over one connection of plain HTTP/2 that is opened when needed.

What is said on the connection is decided in `unary_calls`; this carries it. All that happens in one
turn of the event loop goes out together, and a reply wakes its caller and nobody else.
"""

import asyncio
from typing import cast

from services.wire.http2 import frames as h2
from services.wire.http2.client.replies import UNAVAILABLE, Failure
from services.wire.http2.client.unary_calls import Call, UnaryCalls

KEEPALIVE_TICK_S = 10.0
SILENT_TICKS = 2
"""While a call is under way, a server silent for so long is asked for a sign of life, and has one
more tick to give it. As long as the mesh's other channels wait."""

MAX_PINGS = 2
"""Pings between two replies: grpc's servers take a fourth for an attack and hang up."""

CONNECT_TIMEOUT_S = 10.0

PAUSES_S = (0.0, 0.01, 0.1)
"""Before another try of a call that the server has not looked at. A server at its limit of streams
counts one for a moment longer than its client."""

_Waiter = asyncio.Future[None]


class CallFailedError(Exception):
    """A call that has no reply.

    Attributes:
        failure: how it ended.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class UnaryChannel:
    """Calls to one server."""

    def __init__(self, address: str, max_message_bytes: int, max_metadata_bytes: int) -> None:
        """Opens nothing yet.

        Args:
            address: `host:port`.
            max_message_bytes: largest reply.
            max_metadata_bytes: largest set of header fields of a reply.
        """
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._max_metadata_bytes = max_metadata_bytes
        self._connection: _Connection | None = None
        self._alive: set[_Connection] = set()
        self._connecting = asyncio.Lock()
        self._closed = False

    def header_block(self, path: str) -> bytes:
        """The header fields of all calls of one method, such as `/package.Service/Method`."""
        return h2.literal_fields(
            (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", self._address.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )

    async def call(self, headers: bytes, body: bytes) -> bytes:
        """Calls a method; cancelling it cancels it at the server.

        Args:
            headers: its `header_block`, and any more fields.
            body: the serialised request.

        Returns:
            The serialised reply.

        Raises:
            CallFailedError: with the server's status, or UNAVAILABLE if it cannot be reached.
        """
        failure: Failure | None = None
        for pause_s in (None, *PAUSES_S):
            if pause_s is not None:
                await asyncio.sleep(pause_s)
            connection = self._connection
            if connection is None or not connection.calls.accepting:
                connection = await self._connect()
            if not connection.calls.accepting:
                failure = Failure(UNAVAILABLE, "the connection was lost at once")
                continue
            call: Call[_Waiter] = Call(headers, body, connection.loop.create_future())
            connection.begin(call)
            try:
                await call.waiter
            except asyncio.CancelledError:
                connection.cancel(call)
                raise
            if call.reply is not None:
                return call.reply
            failure = call.failure
            if failure is None or not failure.untouched:
                break
        assert failure is not None
        raise CallFailedError(failure)

    async def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._closed = True
        for connection in list(self._alive):
            connection.close()
        self._connection = None

    async def _connect(self) -> "_Connection":
        async with self._connecting:
            connection = self._connection
            if connection is not None and connection.calls.accepting:
                return connection
            if self._closed:
                raise CallFailedError(Failure(UNAVAILABLE, "the channel is closed"))
            host, _, port = self._address.rpartition(":")
            calls: UnaryCalls[_Waiter] = UnaryCalls(
                self._max_message_bytes, self._max_metadata_bytes
            )
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(calls, self._alive), host.strip("[]"), int(port)
                    )
            except (OSError, TimeoutError) as error:
                why = f"failed to connect to {self._address}: {error or type(error).__name__}"
                raise CallFailedError(Failure(UNAVAILABLE, why)) from error
            if self._closed:
                connection.close()
            self._connection = connection
            return connection


class _Connection(asyncio.Protocol):
    """Carries bytes between `UnaryCalls` and a socket."""

    def __init__(self, calls: UnaryCalls[_Waiter], alive: "set[_Connection]") -> None:
        """Not connected yet; is in `alive` for as long as it is."""
        self.calls = calls
        self.loop = asyncio.get_running_loop()
        self._alive = alive
        self._transport: asyncio.Transport | None = None
        self._flushing = False
        self._heard = False
        self._pinged = False
        self._silent_ticks = 0
        self._pings = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, call: Call[_Waiter]) -> None:
        """Sends a call, together with all others of this turn of the event loop."""
        self.calls.begin(call)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def cancel(self, call: Call[_Waiter]) -> None:
        """Ends a call that nobody waits for any more."""
        self._tell(self.calls.cancel(call))
        self._flush()
        self._close_if_done()

    def close(self) -> None:
        """Closes the connection."""
        self._lose("the channel was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._alive.add(self)
        self._timer = self.loop.call_later(KEEPALIVE_TICK_S, self._keep_alive)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._tell(self.calls.receive(data))
        except h2.ProtocolError as error:
            self.calls.outgoing.append(h2.goaway(error.code))
            self._flush()
            self._lose(f"the server broke the protocol: {error}")
            return
        if self.calls.outgoing:
            self._flush()
        if not self.calls.accepting:
            self._close_if_done()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(f"the connection was lost: {error or 'closed by the server'}")

    def _lose(self, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._alive.discard(self)
        self._tell(self.calls.lose(why))
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _close_if_done(self) -> None:
        if not self.calls.accepting and not self.calls.count:
            self._lose("the connection takes no more calls")

    def _flush(self) -> None:
        self._flushing = False
        outgoing = self.calls.outgoing
        if not outgoing or self._transport is None:
            return
        # uvloop makes a system call of each write: a third of the agent's for a small request.
        if len(outgoing) == 1:
            self._transport.write(outgoing[0])
        else:
            self._transport.writelines(outgoing)
        self.calls.outgoing = []

    def _tell(self, ended: list[Call[_Waiter]]) -> None:
        for call in ended:
            self._pings = 0
            if not call.waiter.done():
                call.waiter.set_result(None)

    def _keep_alive(self) -> None:
        self._timer = self.loop.call_later(KEEPALIVE_TICK_S, self._keep_alive)
        if self._heard or not self.calls.count:
            self._heard = self._pinged = False
            self._silent_ticks = 0
            return
        self._silent_ticks += 1
        if self._pinged:
            if self._transport is not None:
                # Closing would wait until what is written is read.
                self._transport.abort()
            self._lose(f"the server gave no sign of life for {KEEPALIVE_TICK_S:g} s")
        elif self._silent_ticks >= SILENT_TICKS and self._pings < MAX_PINGS:
            self._pinged = True
            self._pings += 1
            self.calls.outgoing.append(h2.ping(bytes(8)))
            self._flush()
