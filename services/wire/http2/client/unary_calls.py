"""Pure: unary gRPC calls over one HTTP/2 connection, as a client sees them.

`UnaryCalls` is told what to call and what arrived; it says what to send and which calls have ended.
It follows RFC 9113 and gRPC's "gRPC over HTTP2". Windows for what arrives are as large as they can
be: a reply is kept whole in any case, and a message has a limit of its own.
"""

from collections import deque
from typing import Generic, TypeVar

from services.wire.http2 import frames as h2
from services.wire.http2.client.replies import (
    INTERNAL,
    PREFIX_BYTES,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    Failure,
    FieldReader,
    TooManyFieldsError,
    failure_of_reset,
    failure_of_size,
    reply_of,
)
from services.wire.http2.frames import ProtocolError

MAX_FRAME_BYTES = 1024 * 1024
"""Largest frame taken in: a reply of 600 KB comes in one."""

_WINDOW_STEP_BYTES = 2**30

W = TypeVar("W")


class Call(Generic[W]):
    """One call.

    Attributes:
        waiter: whatever the caller put there.
        reply: the serialised reply, once it has ended well.
        failure: why it has not.
    """

    __slots__ = (
        "body",
        "failure",
        "headers",
        "http_status",
        "parts",
        "received",
        "reply",
        "sent",
        "stream",
        "waiter",
        "window",
    )

    def __init__(self, headers: bytes, body: bytes, waiter: W) -> None:
        """A call that was not sent: its header block and its serialised request."""
        self.headers = headers
        self.body = body
        self.waiter = waiter
        self.reply: bytes | None = None
        self.failure: Failure | None = None
        self.stream = 0
        self.window = 0
        self.sent = 0
        self.http_status = 200
        self.parts: list[bytes] = []
        self.received = 0

    @property
    def unsent_bytes(self) -> int:
        """What was not sent of the body and its prefix."""
        return len(self.body) + PREFIX_BYTES - self.sent


class UnaryCalls(Generic[W]):
    """The calls on one connection.

    Attributes:
        outgoing: what is to be sent, in order; whoever sends it empties the list.
        accepting: whether more calls may begin; False once the server takes no more.
    """

    def __init__(self, max_message_bytes: int, max_metadata_bytes: int) -> None:
        """A connection on which nothing was sent.

        Args:
            max_message_bytes: largest reply.
            max_metadata_bytes: largest set of header fields.
        """
        self._max_message_bytes = max_message_bytes
        self._max_metadata_bytes = max_metadata_bytes
        self._reader = h2.FrameReader(MAX_FRAME_BYTES)
        self._fields = FieldReader(max_metadata_bytes)
        self._open: dict[int, Call[W]] = {}
        self._waiting: deque[Call[W]] = deque()
        self._unsent: deque[Call[W]] = deque()
        self._next_stream = 1
        self._window = h2.DEFAULT_WINDOW_BYTES
        self._stream_window = h2.DEFAULT_WINDOW_BYTES
        self._max_frame_bytes = h2.DEFAULT_FRAME_BYTES
        # Nothing is sent before the server has said how much it takes, as grpc's own client does.
        self._max_streams = -1
        self._unconfirmed = 0
        self._headers: tuple[int, int, list[bytes]] | None = None
        self._ended: list[Call[W]] = []
        self.accepting = True
        self.outgoing: list[bytes | memoryview] = [
            h2.PREFACE,
            h2.settings(
                {
                    h2.HEADER_TABLE_SIZE: 0,
                    h2.ENABLE_PUSH: 0,
                    h2.INITIAL_WINDOW_SIZE: h2.MAX_WINDOW_BYTES,
                    h2.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
                    h2.MAX_HEADER_LIST_SIZE: max_metadata_bytes,
                }
            ),
            h2.window_update(0, h2.MAX_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES),
        ]

    @property
    def count(self) -> int:
        """Calls that have not ended."""
        return len(self._open) + len(self._waiting)

    def begin(self, call: Call[W]) -> None:
        """Sends a call, or as much of it as the server takes now."""
        if len(self._open) >= self._max_streams:
            self._waiting.append(call)
            return
        stream = call.stream = self._next_stream
        self._next_stream = stream + 2
        if self._next_stream > h2.LAST_STREAM:
            self.accepting = False
        self._open[stream] = call
        call.window = self._stream_window
        headers, body = call.headers, call.body
        length = len(body) + PREFIX_BYTES
        head = h2.frame_header(len(headers), h2.HEADERS, h2.END_HEADERS, stream) + headers
        room = min(self._window, call.window, self._max_frame_bytes)
        if length <= room and not self._unsent:
            self._window -= length
            call.sent = length
            head += h2.frame_header(length, h2.DATA, h2.END_STREAM, stream)
            self.outgoing.append(b"%b\0%b%b" % (head, len(body).to_bytes(4, "big"), body))
            return
        self.outgoing.append(head)
        self._unsent.append(call)
        self._send_bodies()

    def cancel(self, call: Call[W]) -> list[Call[W]]:
        """Ends a call that nobody waits for any more; returns others that have ended by it."""
        if call.stream == 0:
            if call in self._waiting:
                self._waiting.remove(call)
        elif self._open.pop(call.stream, None) is not None:
            self._reset(call)
            self._begin_waiting()
        return self._take_ended()

    def lose(self, why: str) -> list[Call[W]]:
        """Ends all calls, because the connection is gone; returns them."""
        self.accepting = False
        for call in [*self._open.values(), *self._waiting]:
            call.failure = call.failure or Failure(UNAVAILABLE, why)
            self._ended.append(call)
        self._open.clear()
        self._waiting.clear()
        self._unsent.clear()
        return self._take_ended()

    def receive(self, data: bytes) -> list[Call[W]]:
        """Takes what arrived; returns the calls that have ended by it.

        Raises:
            ProtocolError: if the connection is of no more use. Send `frames.goaway`, then
                `lose`.
        """
        for kind, flags, stream, payload in self._reader.feed(data):
            if self._headers is not None and kind != h2.CONTINUATION:
                raise ProtocolError("a header block that was interrupted")
            if kind == h2.DATA:
                self._on_data(flags, stream, payload)
            elif kind == h2.HEADERS:
                self._on_headers(flags, stream, payload)
            elif kind == h2.CONTINUATION:
                self._on_continuation(flags, stream, payload)
            elif kind == h2.RST_STREAM:
                self._on_reset(stream, h2.read_number(payload, "RST_STREAM"))
            elif stream == 0 or kind == h2.WINDOW_UPDATE:
                self._on_control(kind, flags, stream, payload)
            elif kind in (h2.SETTINGS, h2.PING, h2.GOAWAY, h2.PUSH_PROMISE):
                raise ProtocolError(f"a frame of type {kind} on stream {stream}")
        return self._take_ended()

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == h2.WINDOW_UPDATE:
            self._on_window(stream, h2.read_number(payload, "WINDOW_UPDATE") & h2.LAST_STREAM)
        elif kind == h2.PING:
            if len(payload) != 8:
                raise ProtocolError("a PING frame of the wrong length", h2.FRAME_SIZE_ERROR)
            if not flags & h2.ACK:
                self.outgoing.append(h2.ping(payload, h2.ACK))
        elif kind == h2.SETTINGS:
            if not flags & h2.ACK:
                self._on_settings(payload)
            elif payload:
                raise ProtocolError("a confirmation with settings", h2.FRAME_SIZE_ERROR)
        elif kind == h2.GOAWAY:
            self._on_goaway(payload)
        elif kind == h2.PUSH_PROMISE:
            raise ProtocolError("a pushed stream, which was not agreed")

    def _on_settings(self, payload: bytes) -> None:
        if self._max_streams < 0:
            self._max_streams = h2.LAST_STREAM
        for key, value in h2.read_settings(payload):
            if key == h2.INITIAL_WINDOW_SIZE:
                if value > h2.MAX_WINDOW_BYTES:
                    raise ProtocolError(f"a window of {value} bytes", h2.FLOW_CONTROL_ERROR)
                for call in self._open.values():
                    call.window += value - self._stream_window
                self._stream_window = value
            elif key == h2.MAX_FRAME_SIZE:
                if not h2.DEFAULT_FRAME_BYTES <= value < 2**24:
                    raise ProtocolError(f"frames of at most {value} bytes")
                self._max_frame_bytes = value
            elif key == h2.MAX_CONCURRENT_STREAMS:
                self._max_streams = value
        self.outgoing.append(h2.frame_header(0, h2.SETTINGS, h2.ACK, 0))
        self._send_bodies()
        self._begin_waiting()

    def _on_window(self, stream: int, increment: int) -> None:
        if increment == 0:
            raise ProtocolError("a window update of nothing")
        if stream == 0:
            self._window += increment
            if self._window > h2.MAX_WINDOW_BYTES:
                raise ProtocolError("a window too large", h2.FLOW_CONTROL_ERROR)
        else:
            self._check_known(stream)
            call = self._open.get(stream)
            if call is None:
                return
            call.window += increment
            if call.window > h2.MAX_WINDOW_BYTES:
                raise ProtocolError("a window too large", h2.FLOW_CONTROL_ERROR)
        if self._unsent:
            self._send_bodies()

    def _on_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise ProtocolError("a GOAWAY frame of the wrong length", h2.FRAME_SIZE_ERROR)
        self.accepting = False
        last = int.from_bytes(payload[:4], "big") & h2.LAST_STREAM
        code = int.from_bytes(payload[4:8], "big")
        said = payload[8:200].decode("utf-8", "replace")
        why = f"the server is going away (HTTP/2 error {code}): {said}"
        for call in [call for stream, call in self._open.items() if stream > last]:
            self._fail(call, Failure(UNAVAILABLE, why, untouched=True))
        self._turn_away(why)

    def _on_reset(self, stream: int, code: int) -> None:
        self._check_known(stream)
        call = self._open.get(stream)
        if call is not None:
            self._fail(call, failure_of_reset(code))

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_known(stream)
        self._unconfirmed += len(payload)
        if self._unconfirmed >= _WINDOW_STEP_BYTES:
            self.outgoing.append(h2.window_update(0, self._unconfirmed))
            self._unconfirmed = 0
        call = self._open.get(stream)
        if call is None:
            return
        if flags & h2.PADDED:
            payload = h2.unpadded(payload, flags & h2.PADDED)
        call.parts.append(payload)
        call.received += len(payload)
        if call.received > self._max_message_bytes + PREFIX_BYTES:
            self._reset(call)
            self._fail(call, failure_of_size(call.parts, self._max_message_bytes))
        elif flags & h2.END_STREAM:
            self._fail(call, Failure(INTERNAL, "the reply ended without a status"))

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_known(stream)
        if flags & (h2.PADDED | h2.PRIORITIZED):
            payload = h2.unpadded(payload, flags)
        if flags & h2.END_HEADERS:
            self._on_block(stream, flags, payload)
        else:
            self._headers = (stream, flags, [payload])

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != stream:
            raise ProtocolError("a continuation of nothing")
        _, begun, parts = self._headers
        parts.append(payload)
        if sum(map(len, parts)) > 2 * self._max_metadata_bytes:
            raise ProtocolError("an endless header block", h2.ENHANCE_YOUR_CALM)
        if flags & h2.END_HEADERS:
            self._headers = None
            self._on_block(stream, begun, b"".join(parts))

    def _on_block(self, stream: int, flags: int, block: bytes) -> None:
        call = self._open.get(stream)
        if call is None:
            return
        try:
            fields = self._fields.read(block)
        except TooManyFieldsError:
            self._reset(call)
            why = f"metadata of more than {self._max_metadata_bytes} bytes"
            self._fail(call, Failure(RESOURCE_EXHAUSTED, why))
            return
        if not flags & h2.END_STREAM:
            call.http_status = fields.http_status
            return
        if call.unsent_bytes:
            # Answered before the whole request was sent: the rest is of no use.
            self._reset(call)
        reply = reply_of(call.http_status, fields, call.parts)
        if isinstance(reply, Failure):
            self._fail(call, reply)
            return
        call.reply = reply
        self._end(call)

    def _check_known(self, stream: int) -> None:
        if stream >= self._next_stream or stream % 2 == 0:
            raise ProtocolError(f"a frame on stream {stream}, which is not open")

    def _reset(self, call: Call[W]) -> None:
        self.outgoing.append(h2.rst_stream(call.stream, h2.CANCEL))
        if call in self._unsent:
            self._unsent.remove(call)

    def _fail(self, call: Call[W], failure: Failure) -> None:
        call.failure = failure
        self._end(call)

    def _end(self, call: Call[W]) -> None:
        if call.unsent_bytes and call in self._unsent:
            self._unsent.remove(call)
        del self._open[call.stream]
        self._ended.append(call)
        if self._waiting:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._open) < self._max_streams:
            if not self.accepting:
                self._turn_away("the connection has no more streams")
                return
            self.begin(self._waiting.popleft())

    def _turn_away(self, why: str) -> None:
        """Ends the calls that were not sent."""
        while self._waiting:
            call = self._waiting.popleft()
            call.failure = Failure(UNAVAILABLE, why, untouched=True)
            self._ended.append(call)

    def _send_bodies(self) -> None:
        """Sends of the bodies that wait as much as the windows allow, first come first served."""
        for _ in range(len(self._unsent)):
            call = self._unsent.popleft()
            while unsent := call.unsent_bytes:
                size = min(self._window, call.window, self._max_frame_bytes, unsent)
                if size <= 0:
                    self._unsent.append(call)
                    break
                self._send_part(call, size)

    def _send_part(self, call: Call[W], size: int) -> None:
        flags = h2.END_STREAM if size == call.unsent_bytes else 0
        head = h2.frame_header(size, h2.DATA, flags, call.stream)
        start = call.sent - PREFIX_BYTES
        if start < 0:
            prefix = b"\0" + len(call.body).to_bytes(4, "big")
            head += prefix[call.sent : call.sent + size]
        self.outgoing.append(head)
        self.outgoing.append(memoryview(call.body)[max(0, start) : max(0, start + size)])
        call.sent += size
        call.window -= size
        self._window -= size

    def _take_ended(self) -> list[Call[W]]:
        ended, self._ended = self._ended, []
        return ended
