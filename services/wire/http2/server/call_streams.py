"""Pure: gRPC calls over one HTTP/2 connection, as a server sees them.

`CallStreams` is told what arrived and what to answer; it says what to send and what has happened.
It follows RFC 9113 and gRPC's "gRPC over HTTP2". The windows of streams bound what a client can
leave here; that of the connection is as large as it can be.
"""

from enum import Enum, auto

from services.wire.http2 import frames as h2
from services.wire.http2.frames import ProtocolError
from services.wire.http2.server import replies
from services.wire.http2.server.call_fields import (
    CallFieldReader,
    MalformedCallError,
    TooManyFieldsError,
)
from services.wire.http2.server.call_stream import CallStream
from services.wire.http2.server.messages import MessageTooLargeError
from services.wire.http2.server.sending import Sending
from services.wire.http2.server.uploads import STREAM_WINDOW_BYTES, Uploads

MAX_FRAME_BYTES = 256 * 1024
"""Largest frame taken in."""

MAX_STREAMS = 10_000
"""Calls on one connection."""

RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13
"""Status codes of gRPC that a server sets itself."""

MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Of answers that a client does not take; with more, it begins no more calls."""

_WINDOW_STEP_BYTES = 2**30


class Event(Enum):
    """What has happened to a call."""

    BEGUN = auto()
    """Its header block has come."""
    HEARD = auto()
    """A message is complete, or the client has said all."""
    SENT = auto()
    """What was kept back of its messages was sent."""
    GONE = auto()
    """The client has ended it, or broke it."""


Happened = list[tuple[Event, CallStream]]


class CallStreams:
    """The calls on one connection.

    Attributes:
        sending: what is to be sent, and the answers of calls.
        open: calls by stream.
        pings_answered: how many pings of this end the client has answered.
    """

    def __init__(self, max_message_bytes: int, max_metadata_bytes: int) -> None:
        """A connection on which nothing was heard.

        Args:
            max_message_bytes: largest message of a client.
            max_metadata_bytes: largest set of header fields.
        """
        self._max_message_bytes = max_message_bytes
        self._max_metadata_bytes = max_metadata_bytes
        self._reader = h2.FrameReader(MAX_FRAME_BYTES)
        self._fields = CallFieldReader(max_metadata_bytes)
        self._preface = b""
        self._greeted = False
        self._settled = False
        self._headers: tuple[int, int, list[bytes]] | None = None
        self._headers_bytes = 0
        self._last_stream = 0
        self._refuse_after: int | None = None
        self._unconfirmed = 0
        self._happened: Happened = []
        self.open: dict[int, CallStream] = {}
        self.sending = Sending(self.open, self._close)
        self._uploads = Uploads(self.sending)
        self.pings_answered = 0
        offered = {
            h2.HEADER_TABLE_SIZE: 0,
            h2.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            h2.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            h2.MAX_HEADER_LIST_SIZE: max_metadata_bytes,
        }
        raised = h2.MAX_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES
        self.sending.frames += (h2.settings(offered), h2.window_update(0, raised))

    @property
    def greeted(self) -> bool:
        """Whether the client has begun as a client of HTTP/2 does."""
        return self._greeted and self._settled

    def receive(self, data: bytes) -> Happened:
        """Takes what arrived; returns what has happened to calls by it, in order.

        Raises:
            ProtocolError: if the connection is of no more use. Send `goaway`, then `lose`.
        """
        if not self._greeted:
            data = self._greet(data)
        for kind, flags, stream, payload in self._reader.feed(data):
            if self._headers is not None and kind != h2.CONTINUATION:
                raise ProtocolError("a header block that was interrupted")
            if kind == h2.DATA:
                self._on_data(flags, stream, payload)
            elif kind == h2.HEADERS:
                self._on_headers(flags, stream, payload)
            elif kind == h2.CONTINUATION:
                self._on_continuation(flags, stream, payload)
            else:
                self._on_other(kind, flags, stream, payload)
        if self.sending.widened:
            self._happened.extend((Event.SENT, call) for call in self.sending.go_on())
        return self._take_happened()

    def read(self, stream: CallStream) -> tuple[int, bytes]:
        """Takes a complete message of a call out, and lets the client send more.

        Returns:
            Whether it is compressed, and its bytes.
        """
        message = stream.reader.take()
        if not stream.half_closed and not stream.closed:
            self._uploads.refill(stream)
        return message

    def cancel(self, stream: CallStream, code: int = h2.CANCEL) -> None:
        """Breaks a call off."""
        if not stream.closed:
            self.sending.frames.append(h2.rst_stream(stream.id, code))
            self._close(stream)

    def drain(self) -> None:
        """Tells the client to begin no more calls here; those that it has begun are served."""
        self.sending.frames.append(h2.goaway(h2.NO_ERROR, h2.LAST_STREAM))
        self.sending.frames.append(h2.ping(b"draining"))

    def refuse_more(self) -> None:
        """From here on calls are not taken; the client may make them elsewhere."""
        if self._refuse_after is None:
            self._refuse_after = self._last_stream
            self.sending.frames.append(h2.goaway(h2.NO_ERROR, self._last_stream))

    def break_off(self, error: ProtocolError) -> None:
        """Tells the client what it did wrong."""
        text = str(error).encode()
        self.sending.frames.append(h2.goaway(error.code, self._last_stream, text))

    def lose(self) -> Happened:
        """The connection is gone, and all calls with it."""
        for stream in list(self.open.values()):
            self._gone(stream)
        return self._take_happened()

    def _greet(self, data: bytes) -> bytes:
        self._preface += data
        if not h2.PREFACE.startswith(self._preface[: len(h2.PREFACE)]):
            raise ProtocolError("this port speaks gRPC: HTTP/2 without TLS")
        if len(self._preface) < len(h2.PREFACE):
            return b""
        rest, self._preface = self._preface[len(h2.PREFACE) :], b""
        self._greeted = True
        return rest

    def _on_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == h2.SETTINGS:
            self._on_settings(flags, stream, payload)
        elif not self._settled:
            raise ProtocolError("a connection that does not begin with settings")
        elif kind == h2.WINDOW_UPDATE:
            self._on_window_update(stream, h2.read_number(payload, "WINDOW_UPDATE"))
        elif kind == h2.PING:
            self._on_ping(flags, stream, payload)
        elif kind == h2.RST_STREAM:
            h2.read_number(payload, "RST_STREAM")
            self._check_known(stream)
            if stream in self.open:
                self._gone(self.open[stream])
        elif kind == h2.PUSH_PROMISE:
            raise ProtocolError("a push of a client")
        elif kind == h2.PRIORITY and len(payload) != h2.PRIORITY_BYTES:
            raise ProtocolError("a PRIORITY frame of the wrong length", h2.FRAME_SIZE_ERROR)
        # GOAWAY of a client says that it takes no pushes; unknown kinds are ignored (5.5).

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ProtocolError("settings of a stream")
        if flags & h2.ACK:
            if payload:
                raise ProtocolError("an acknowledgement with settings", h2.FRAME_SIZE_ERROR)
            if not self._settled:
                raise ProtocolError("a connection that does not begin with settings")
            return
        self._settled = True
        self.sending.obey(h2.read_settings(payload))
        self.sending.frames.append(h2.SETTINGS_ACK)

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ProtocolError("a ping of a stream")
        if len(payload) != h2.PING_BYTES:
            raise ProtocolError("a ping of the wrong length", h2.FRAME_SIZE_ERROR)
        if flags & h2.ACK:
            self.pings_answered += 1
        else:
            self.sending.frames.append(h2.ping(payload, h2.ACK))

    def _on_window_update(self, stream: int, increment: int) -> None:
        increment &= h2.MAX_WINDOW_BYTES  # The first bit is reserved.
        if stream == 0:
            if not increment:
                raise ProtocolError("a window raised by nothing")
            self.sending.widen(increment)
            return
        self._check_known(stream)
        call = self.open.get(stream)
        if call is None:
            return
        if not increment:
            self._break(call, h2.PROTOCOL_ERROR)
            return
        try:
            self.sending.widen_stream(call, increment)
        except ProtocolError as error:
            self._break(call, error.code)

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_known(stream)
        size = len(payload)
        self._unconfirmed += size
        if self._unconfirmed >= _WINDOW_STEP_BYTES:
            self.sending.frames.append(h2.window_update(0, self._unconfirmed))
            self._unconfirmed = 0
        call = self.open.get(stream)
        if call is None:
            return
        if call.half_closed:
            raise ProtocolError("data after the end of a stream", h2.STREAM_CLOSED)
        call.window -= size
        if call.window < 0:
            raise ProtocolError("more data than was allowed", h2.FLOW_CONTROL_ERROR)
        if flags & h2.PADDED:
            payload = h2.unpadded(payload, flags & h2.PADDED)
        reader = call.reader
        before = len(reader.messages)
        try:
            reader.feed(payload, self._max_message_bytes)
        except MessageTooLargeError as error:
            call.half_closed = bool(flags & h2.END_STREAM)
            self._refuse_message(call, error.size_bytes)
            return
        if flags & h2.END_STREAM:
            self._say_all(call)
            return
        if len(reader.messages) != before:
            self._happened.append((Event.HEARD, call))
            if call.upload is not None:
                self._uploads.done(call)
        if len(payload) != size:
            self._uploads.refill(call)
        if reader.missing_bytes > call.window:
            self._uploads.ask(call)

    def _say_all(self, call: CallStream) -> None:
        call.half_closed = True
        if call.reader.is_inside:
            self._fail(call, INTERNAL, "the request ends midway")
            return
        self._happened.append((Event.HEARD, call))
        if call.upload is not None:
            self._uploads.done(call)

    def _refuse_message(self, call: CallStream, size_bytes: int) -> None:
        why = (
            f"a message of {size_bytes} bytes was sent; the limit is {self._max_message_bytes} "
            "bytes. Send less in one call"
        )
        self._fail(call, RESOURCE_EXHAUSTED, why)

    def _fail(self, call: CallStream, status: int, why: str) -> None:
        """Ends a call with a status; what was kept of its answer is of no use."""
        self.sending.forget(call)
        self.sending.end(call, replies.trailers(status, why, ()))
        self._gone(call)

    def _break(self, call: CallStream, code: int) -> None:
        """Ends a call on whose stream the client broke the protocol."""
        self.cancel(call, code)
        self._gone(call)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & (h2.PADDED | h2.PRIORITIZED):
            payload = h2.unpadded(payload, flags)
        if flags & h2.END_HEADERS:
            self._on_block(stream, flags, payload)
        else:
            self._headers = (stream, flags, [payload])
            self._headers_bytes = len(payload)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != stream:
            raise ProtocolError("a continuation of nothing")
        _, begun, parts = self._headers
        parts.append(payload)
        # A part without bytes counts, too: there could be endlessly many.
        self._headers_bytes += h2.HEADER_BYTES + len(payload)
        if self._headers_bytes > self._fields.max_block_bytes + h2.DEFAULT_FRAME_BYTES:
            raise ProtocolError("an endless header block", h2.ENHANCE_YOUR_CALM)
        if flags & h2.END_HEADERS:
            self._headers = None
            self._on_block(stream, begun, b"".join(parts))

    def _on_block(self, stream: int, flags: int, block: bytes) -> None:
        if not self._settled:
            raise ProtocolError("a connection that does not begin with settings")
        if stream % 2 == 0:
            raise ProtocolError(f"a call on stream {stream}, which is no client's")
        if stream <= self._last_stream:
            self._on_trailers(stream, flags, block)
            return
        self._last_stream = stream
        call = self._opened(stream, block)
        if call is None:
            return
        self.open[stream] = call
        if not call.fields.is_grpc:
            call.half_closed = bool(flags & h2.END_STREAM)
            self.sending.refuse_http(call)
            return
        self._happened.append((Event.BEGUN, call))
        if flags & h2.END_STREAM:
            self._say_all(call)

    def _opened(self, stream: int, block: bytes) -> CallStream | None:
        """The call that a header block begins, or None if it was refused."""
        taken = len(self.open) < MAX_STREAMS and self.sending.kept_bytes <= MAX_KEPT_BYTES
        try:
            fields = self._fields.read(block)
        except TooManyFieldsError:
            why = f"metadata of more than {self._max_metadata_bytes} bytes"
            self.sending.refuse(stream, replies.trailers(RESOURCE_EXHAUSTED, why, ()))
            return None
        except MalformedCallError:
            self.sending.frames.append(h2.rst_stream(stream, h2.PROTOCOL_ERROR))
            return None
        if self._refuse_after is not None or not taken:
            self.sending.frames.append(h2.rst_stream(stream, h2.REFUSED_STREAM))
            return None
        return CallStream(stream, fields, STREAM_WINDOW_BYTES)

    def _on_trailers(self, stream: int, flags: int, block: bytes) -> None:
        """A second block of a call: only its end matters, but the table may follow from it."""
        call = self.open.get(stream)
        try:
            are_trailers = self._fields.skip(block)
        except TooManyFieldsError:
            if call is not None:
                self._break(call, h2.ENHANCE_YOUR_CALM)
            return
        if call is None:
            if not are_trailers:
                raise ProtocolError(f"a call on stream {stream}, after one on {self._last_stream}")
            return
        if not are_trailers:
            self._break(call, h2.PROTOCOL_ERROR)
            return
        if call.half_closed or not flags & h2.END_STREAM:
            raise ProtocolError("a header block inside a call")
        self._say_all(call)

    def _check_known(self, stream: int) -> None:
        if stream > self._last_stream or stream % 2 == 0:
            raise ProtocolError(f"a frame on stream {stream}, which is not open")

    def _close(self, call: CallStream) -> None:
        call.closed = True
        self.open.pop(call.id, None)
        self.sending.forget(call)
        if call.upload is not None:
            self._uploads.done(call)

    def _gone(self, call: CallStream) -> None:
        if not call.closed:
            self._close(call)
        self._happened.append((Event.GONE, call))

    def _take_happened(self) -> Happened:
        happened, self._happened = self._happened, []
        return happened
