"""Pure: how much a client may send on each stream, and who may send a large message now.

Each stream may send its first bytes at once. What a message needs beyond them is allowed to a few
streams at a time, oldest first, so that bodies do not all pile up half sent; a message that has its
place is allowed whole, so that it can always be finished.
"""

from collections import OrderedDict

from services.wire.http2 import frames as h2
from services.wire.http2.server.call_stream import CallStream
from services.wire.http2.server.sending import Sending

STREAM_WINDOW_BYTES = h2.DEFAULT_WINDOW_BYTES
"""What a client may send of a call before anyone has read of it."""

PLACES = 4
"""Large messages that a connection brings at once."""


class Uploads:
    """The windows of a client's streams. Each step takes the same time however many wait."""

    def __init__(self, sending: Sending) -> None:
        """All places are free; what is allowed goes out with `sending`."""
        self._sending = sending
        self._taken = 0
        self._waiting: OrderedDict[int, CallStream] = OrderedDict()

    def ask(self, stream: CallStream) -> None:
        """A message is larger than the window: allows the rest of it now or when it is its turn."""
        if stream.upload is None:
            if self._taken < PLACES:
                self._taken += 1
                stream.upload = True
            else:
                stream.upload = False
                self._waiting[stream.id] = stream
        if stream.upload:
            self._allow_rest(stream)

    def done(self, stream: CallStream) -> None:
        """A message is complete, or its stream is gone: the next in the queue gets its place."""
        had, stream.upload = stream.upload, None
        if had is False:
            del self._waiting[stream.id]
        elif had and self._waiting:
            _, follower = self._waiting.popitem(last=False)
            follower.upload = True
            self._allow_rest(follower)
        elif had:
            self._taken -= 1

    def refill(self, stream: CallStream) -> None:
        """Something was read, or was padding: allows as much again, once it is worth a frame."""
        room = STREAM_WINDOW_BYTES - stream.window - stream.reader.unread_bytes
        if room >= STREAM_WINDOW_BYTES // 2:
            self._allow(stream, room)

    def _allow_rest(self, stream: CallStream) -> None:
        missing = stream.reader.missing_bytes - stream.window
        if missing > 0:
            self._allow(stream, missing)

    def _allow(self, stream: CallStream, increment: int) -> None:
        stream.window += increment
        self._sending.frames.append(h2.window_update(stream.id, increment))
