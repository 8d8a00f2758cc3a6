"""Pure: what a server sends on one HTTP/2 connection, within the windows of its client.

What the windows do not allow yet stays with its call, in order, and goes out as they widen.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from services.wire.http2 import frames as h2
from services.wire.http2.frames import ProtocolError
from services.wire.http2.server import replies
from services.wire.http2.server.call_stream import CallStream, Part
from services.wire.http2.server.messages import PREFIX_BYTES

_INITIAL_SIZE = len(replies.INITIAL)
_JOINED_BYTES = 16 * 1024
"""Messages up to here are copied, so that they are one frame with their prefix."""

_TABLE_BYTES = 4096
_TABLE_OF_0 = b"\x20"
"""RFC 7541, 6.3: a client that allows a smaller table than there is at first is told a size."""


class Sending:
    """The sending half of a connection.

    Attributes:
        frames: what is to be sent, in order; whoever sends it empties the list.
        initial_window: how many bytes the client takes on a stream of its own accord.
        kept_bytes: of messages that the client does not take yet.
        widened: windows have grown since `go_on` was called.
    """

    def __init__(
        self, open_calls: dict[int, CallStream], closed: Callable[[CallStream], None]
    ) -> None:
        """Nothing sent yet.

        Args:
            open_calls: by stream; read only.
            closed: told each call whose last frame is on its way.
        """
        self.frames: list[Part] = []
        self.initial_window = h2.DEFAULT_WINDOW_BYTES
        self._open = open_calls
        self._closed = closed
        self._window = h2.DEFAULT_WINDOW_BYTES
        self._max_frame = h2.DEFAULT_FRAME_BYTES
        self._paused = False
        self._raised = False
        self._table_bytes = _TABLE_BYTES
        self._table_update = b""
        self.kept_bytes = 0
        self.widened = False
        # Calls with something kept: those that wait for the connection, and for their own window.
        self._waiting: OrderedDict[int, CallStream] = OrderedDict()
        self._stalled: dict[int, CallStream] = {}
        self._emptied: list[CallStream] = []

    def reply(self, call: CallStream, message: bytes, block: bytes) -> None:
        """Answers a call with one message and ends it.

        Args:
            call: the call.
            message: serialised.
            block: its trailers.
        """
        if call.closed:
            return
        size = len(message) + PREFIX_BYTES
        if (
            size > self._window
            or size > self._max_frame
            or size > self.initial_window + call.credit
            or call.answered
            or self._paused
            or self._table_update
        ):
            self.message(call, message)
            self.end(call, block)
            return
        self._window -= size
        header, stream = h2.frame_header, call.id
        self.frames.append(
            b"".join(
                (
                    header(_INITIAL_SIZE, h2.HEADERS, h2.END_HEADERS, stream),
                    replies.INITIAL,
                    header(size, h2.DATA, 0, stream),
                    b"\0" + len(message).to_bytes(4, "big"),
                    message,
                    header(len(block), h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream),
                    block,
                )
            )
        )
        self._finish(call)

    def begin(self, call: CallStream, block: bytes = b"") -> None:
        """Sends the header block before the first message, if it was not; `block` is metadata."""
        if not call.answered and not call.closed:
            call.answered = True
            self._headers(call.id, replies.INITIAL + block, 0)

    def message(self, call: CallStream, message: bytes) -> None:
        """Sends a serialised message, or keeps what the windows do not allow."""
        if call.closed:
            return
        self.begin(call)
        behind = bool(call.unsent)
        prefix, size = b"\0" + len(message).to_bytes(4, "big"), len(message) + PREFIX_BYTES
        if size <= _JOINED_BYTES:
            call.unsent.append(prefix + message)
        else:
            call.unsent.append(prefix)
            call.unsent.append(memoryview(message))
        call.unsent_bytes += size
        self.kept_bytes += size
        if not behind:
            self._pump(call)

    def end(self, call: CallStream, block: bytes) -> None:
        """Ends a call with trailers, after what was kept of its messages."""
        if call.closed:
            return
        if call.unsent:
            call.ending = block
            return
        if not call.answered:
            block = replies.trailers_only(block)
        self._headers(call.id, block, h2.END_STREAM)
        self._finish(call)

    def refuse(self, stream: int, block: bytes) -> None:
        """Ends a call with trailers that was never opened."""
        self._headers(stream, replies.trailers_only(block), h2.END_STREAM)
        self.frames.append(h2.rst_stream(stream, h2.NO_ERROR))

    def refuse_http(self, call: CallStream) -> None:
        """Answers a request that is none of gRPC."""
        self._headers(call.id, replies.not_grpc(), h2.END_STREAM)
        self._finish(call)

    def obey(self, settings: Iterable[tuple[int, int]]) -> None:
        """Takes over settings of the client.

        Raises:
            ProtocolError: if one is out of its range.
        """
        for key, value in settings:
            if key == h2.INITIAL_WINDOW_SIZE:
                if value > h2.MAX_WINDOW_BYTES:
                    raise ProtocolError("a window too large", h2.FLOW_CONTROL_ERROR)
                if value > self.initial_window:
                    self._raised = self.widened = True
                self.initial_window = value
            elif key == h2.MAX_FRAME_SIZE:
                if not h2.DEFAULT_FRAME_BYTES <= value < 2**24:
                    raise ProtocolError(f"a largest frame of {value} bytes")
                self._max_frame = value
            elif key == h2.ENABLE_PUSH and value > 1:
                raise ProtocolError("ENABLE_PUSH is neither 0 nor 1")
            elif key == h2.HEADER_TABLE_SIZE and value < self._table_bytes:
                self._table_bytes, self._table_update = 0, _TABLE_OF_0

    def go_on(self) -> list[CallStream]:
        """Sends what wider windows allow, once for all frames that widened them.

        Were it done at each frame, a client with many calls would have all of them looked at for
        each of a thousand frames that allow one byte.

        Returns:
            The calls of which something was kept and nothing is any more.

        Raises:
            ProtocolError: if a setting made a window larger than one may be.
        """
        self.widened = False
        if self._raised:
            self._raised = False
            for call in self._open.values():
                _check_window(self.initial_window + call.credit)
            for call in list(self._stalled.values()):
                self._pump(call)
        self._pump_waiting()
        return self._take_emptied()

    def widen(self, increment: int) -> None:
        """The client takes more on the connection; `go_on` follows.

        Raises:
            ProtocolError: if that is more than a window may be.
        """
        self._window += increment
        _check_window(self._window)
        if self._waiting:
            self.widened = True

    def widen_stream(self, call: CallStream, increment: int) -> None:
        """The client takes more of one call; `go_on` follows.

        Raises:
            ProtocolError: if that is more than a window may be.
        """
        call.credit += increment
        _check_window(self.initial_window + call.credit)
        if call.unsent:
            self._pump(call)
            self.widened = True

    def pause(self) -> None:
        """The client reads more slowly than is sent: messages are kept from now on."""
        self._paused = True

    def resume(self) -> list[CallStream]:
        """Goes on after a pause; returns the calls of which nothing is kept any more."""
        self._paused = False
        self._pump_waiting()
        return self._take_emptied()

    def forget(self, call: CallStream) -> None:
        """What was kept of a call is not sent any more."""
        if call.unsent:
            call.unsent.clear()
            self.kept_bytes -= call.unsent_bytes
            call.unsent_bytes = 0
            call.ending = None
            self._waiting.pop(call.id, None)
            self._stalled.pop(call.id, None)

    def _take_emptied(self) -> list[CallStream]:
        emptied, self._emptied = self._emptied, []
        return emptied

    def _pump_waiting(self) -> None:
        while self._waiting and self._window > 0 and not self._paused:
            self._pump(next(iter(self._waiting.values())))

    def _pump(self, call: CallStream) -> None:
        while call.unsent:
            part = call.unsent[0]
            own = self.initial_window + call.credit
            if own <= 0:
                self._waiting.pop(call.id, None)
                self._stalled[call.id] = call
                return
            if self._window <= 0 or self._paused:
                # At the end: a large message does not keep others from their turn.
                self._stalled.pop(call.id, None)
                self._waiting[call.id] = call
                self._waiting.move_to_end(call.id)
                return
            room = min(self._window, own, self._max_frame)
            if len(part) <= room:
                call.unsent.popleft()
            else:
                call.unsent[0], part = memoryview(part)[room:], memoryview(part)[:room]
            size = len(part)
            self.frames.append(h2.frame_header(size, h2.DATA, 0, call.id))
            self.frames.append(part)
            call.unsent_bytes -= size
            self.kept_bytes -= size
            call.credit -= size
            self._window -= size
        if self._waiting.pop(call.id, None) or self._stalled.pop(call.id, None):
            self._emptied.append(call)
        if call.ending is not None:
            block, call.ending = call.ending, None
            self.end(call, block)

    def _headers(self, stream: int, block: bytes, flags: int) -> None:
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        kind = h2.HEADERS
        while len(block) > self._max_frame:
            part, block = block[: self._max_frame], block[self._max_frame :]
            self.frames.append(h2.frame_header(len(part), kind, flags, stream) + part)
            kind, flags = h2.CONTINUATION, 0
        flags |= h2.END_HEADERS
        self.frames.append(h2.frame_header(len(block), kind, flags, stream) + block)

    def _finish(self, call: CallStream) -> None:
        if not call.half_closed:
            # The rest of the request is of no use (RFC 9113, 8.1).
            self.frames.append(h2.rst_stream(call.id, h2.NO_ERROR))
        self._closed(call)


def _check_window(window: int) -> None:
    if window > h2.MAX_WINDOW_BYTES:
        raise ProtocolError("a window too large", h2.FLOW_CONTROL_ERROR)
