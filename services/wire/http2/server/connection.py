"""Carries bytes between a client's socket and `CallStreams`, and runs the handlers of its calls.

All that happens in one turn of the event loop goes out together.
"""

import asyncio
from typing import cast

import grpc
import structlog

from services.wire.http2.frames import PREFACE, ProtocolError, ping
from services.wire.http2.server import replies
from services.wire.http2.server.call_stream import CallStream
from services.wire.http2.server.call_streams import UNIMPLEMENTED, CallStreams, Event, Happened
from services.wire.http2.server.messages import ENCODINGS
from services.wire.http2.server.methods import Methods
from services.wire.http2.server.server_call import ServerCall

log = structlog.get_logger()

TICK_S = 10.0
SILENT_TICKS = 2
"""A client silent for so long is asked for a sign of life, and has one more tick to give it."""

LINGER_S = 1.0
"""For how long a connection without calls stays open, so that its client closes it: with bytes of
it on the way, closing here would take what it has not read away from it."""

PONG_WAIT_S = 1.0

BROKEN_LOG_S = 1.0
"""A server logs one client in so long that breaks the protocol: one can come again at once."""

_NO_HTTP2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\n\r\nThis port speaks gRPC: HTTP/2 without TLS.\n"
)
_ENCODINGS = (("grpc-accept-encoding", ",".join(ENCODINGS)),)


class Connections:
    """Those of one server.

    Attributes:
        open: the clients that are connected.
        stopping: whether no more are taken.
    """

    def __init__(self) -> None:
        """None yet."""
        self.open: set[Connection] = set()
        self.stopping = False
        self._broken = 0
        self._broken_logged_s = float("-inf")

    def note_broken(self, peer: str, error: ProtocolError, now_s: float) -> None:
        """Logs that a client broke the protocol, with how many did since the last such line.

        Args:
            peer: its address.
            error: what it did.
            now_s: monotonic time.
        """
        self._broken += 1
        if now_s - self._broken_logged_s >= BROKEN_LOG_S:
            log.info("grpc.protocol_broken", peer=peer, error=str(error), clients=self._broken)
            self._broken, self._broken_logged_s = 0, now_s


class Connection(asyncio.Protocol):
    """One client.

    Attributes:
        streams: what is said on it.
        loop: of the process.
        peer: address of the client, such as `ipv4:10.0.0.5:40210`.
        max_message_bytes: largest message.
        closed: done when the connection is gone.
    """

    def __init__(
        self,
        methods: Methods,
        max_message_bytes: int,
        max_metadata_bytes: int,
        connections: Connections,
    ) -> None:
        """Not connected yet.

        Args:
            methods: what may be called.
            max_message_bytes: largest message of a client.
            max_metadata_bytes: largest set of header fields of a call.
            connections: has this among it for as long as it is connected.
        """
        self.loop = asyncio.get_running_loop()
        self.streams = CallStreams(max_message_bytes, max_metadata_bytes)
        self.peer = ""
        self.max_message_bytes = max_message_bytes
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self._methods = methods
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._calls: dict[CallStream, ServerCall] = {}
        self._flushing = False
        self._draining = False
        self._refusing = False
        self._paused = False
        self._pings_sent = 0
        self._heard_bytes = 0
        self._unread_bytes = 0
        self._silent_ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closer: asyncio.TimerHandle | None = None

    @property
    def calls(self) -> list[ServerCall]:
        """Those whose handlers run, or wait for their request."""
        return list(self._calls.values())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for the client to speak first: one of HTTP/1.1 is answered as such."""
        self._transport = cast(asyncio.Transport, transport)
        if self._connections.stopping:
            # It was accepted in the very moment in which that ended.
            self._transport.abort()
            return
        name = transport.get_extra_info("peername")
        self.peer = f"ipv4:{name[0]}:{name[1]}" if name else "unknown"
        if name and ":" in name[0]:
            self.peer = f"ipv6:[{name[0]}]:{name[1]}"
        self._connections.open.add(self)
        self._timer = self.loop.call_later(TICK_S, self._tick)

    def data_received(self, data: bytes) -> None:
        """Takes what the client sent, and begins the calls in it."""
        self._heard_bytes += len(data)
        try:
            happened = self.streams.receive(data)
        except ProtocolError as error:
            self._break(error, data)
            return
        if happened:
            self._tell(happened)
        if self.streams.sending.frames and not self._flushing:
            self._flush()
        if self._draining:
            self._go_on_draining()
            # It may have taken the last of what was kept for it.
            self._close_if_done()

    def eof_received(self) -> None:
        """The client sends nothing more: it hears nothing either, as gRPC's clients do."""

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the calls: nobody hears their answers."""
        self._connections.open.discard(self)
        self._transport = None
        for timer in (self._timer, self._closer):
            if timer is not None:
                timer.cancel()
        self._tell(self.streams.lose())
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The client reads more slowly than is written: what it asks is not read meanwhile."""
        self._paused = True
        self.streams.sending.pause()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Goes on: the client has read."""
        self._heard_bytes += 1
        self._paused = False
        self._tell([(Event.SENT, stream) for stream in self.streams.sending.resume()])
        self._flush()
        self._close_if_done()
        # What was sent now may have been too much again.
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def flush_soon(self) -> None:
        """Sends what was said in this turn of the event loop, at its end."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def drain(self) -> None:
        """Takes no more calls, and closes when those under way have ended."""
        if self._draining:
            return
        self._draining = True
        self.streams.drain()
        self._pings_sent += 1
        self._flush()
        # A call may be on its way; the answer to a ping comes after it.
        self.loop.call_later(PONG_WAIT_S, self._refuse_more)

    def close(self) -> None:
        """Ends what is under way, and closes when what was written is read."""
        for call in self.calls:
            call.break_off(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        self._refuse_more()
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once; what was not sent is lost."""
        if self._transport is not None:
            self._transport.abort()

    def _go_on_draining(self) -> None:
        if self.streams.pings_answered >= self._pings_sent:
            self._refuse_more()

    def _refuse_more(self) -> None:
        if self._refusing:
            return
        self._refusing = True
        self.streams.refuse_more()
        self._flush()
        self._close_if_done()

    def _close_if_done(self) -> None:
        done = self._refusing and not self._calls and not self.streams.open
        if done and self._closer is None and self._transport is not None:
            self._closer = self.loop.call_later(LINGER_S, self._transport.close)

    def _tell(self, happened: Happened) -> None:
        waiting: list[ServerCall] = []
        for event, stream in happened:
            if event is Event.BEGUN:
                call = self._opened(stream)
                if call is not None:
                    waiting.append(call)
                continue
            known = self._calls.get(stream)
            if known is None:
                continue
            if event is Event.HEARD:
                known.heard()
            elif event is Event.SENT:
                known.sent()
            else:
                known.gone()
        for call in waiting:
            if call.task is None:
                call.watch_deadline()

    def _opened(self, stream: CallStream) -> ServerCall | None:
        """The call of a stream, or None if it was refused."""
        if stream.closed:
            # By what came right after its header block.
            return None
        fields, end = stream.fields, self.streams.sending.end
        method = self._methods.find(fields.path)
        if method is None:
            end(stream, replies.trailers(UNIMPLEMENTED, "Method not found!", ()))
            return None
        if fields.encoding and fields.encoding not in ENCODINGS:
            why = f"messages compressed with {fields.encoding[:40]} are not understood"
            end(stream, replies.trailers(UNIMPLEMENTED, why, _ENCODINGS))
            return None
        call = self._calls[stream] = ServerCall(self, stream, method)
        if call.may_begin:
            call.begin()
        return call

    def forget(self, stream: CallStream) -> None:
        """A call has ended, or nobody waits for it any more."""
        self._calls.pop(stream, None)
        if self._refusing:
            self._close_if_done()

    def _break(self, error: ProtocolError, data: bytes) -> None:
        self._connections.note_broken(self.peer, error, self.loop.time())
        if self._transport is None:
            return
        if not self.streams.greeted and not PREFACE.startswith(data[: len(PREFACE)]):
            self.streams.sending.frames.clear()
            if data[:1].isalpha():
                self._transport.write(_NO_HTTP2)
        else:
            self.streams.break_off(error)
            self._flush()
        self._tell(self.streams.lose())
        self._transport.close()

    def _flush(self) -> None:
        self._flushing = False
        frames = self.streams.sending.frames
        if not frames or self._transport is None:
            return
        self.streams.sending.frames = []
        if self._transport.is_closing():
            return
        # uvloop makes a system call of each write.
        if len(frames) == 1:
            self._transport.write(frames[0])
        else:
            self._transport.writelines(frames)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_S, self._tick)
        if self._transport is None:
            return
        # One that takes what it is sent is not silent: nothing is read of it until it has.
        unread_bytes = self._transport.get_write_buffer_size()
        taking = unread_bytes < self._unread_bytes
        self._unread_bytes = unread_bytes
        if (self._heard_bytes or taking) and self.streams.greeted:
            self._heard_bytes = self._silent_ticks = 0
            return
        self._silent_ticks += 1
        if self._silent_ticks > SILENT_TICKS or not self.streams.greeted:
            # Closing would wait until what is written is read.
            self._transport.abort()
        elif self._silent_ticks == SILENT_TICKS:
            self.streams.sending.frames.append(ping(bytes(8)))
            self._pings_sent += 1
            self._flush()
