"""Pure: who may send a large message now.

Each stream may send its first bytes at once. What a message needs beyond them is allowed to a few
streams at a time, oldest first, so that bodies do not all pile up half sent; a message that has its
place is allowed whole, so that it can always be finished.
"""

from collections import deque

from services.wire.http2.server.call_stream import CallStream

PLACES = 4
"""Large messages that a connection brings at once."""


class Uploads:
    """The places of one connection."""

    def __init__(self) -> None:
        """All free."""
        self._taken = 0
        self._waiting: deque[CallStream] = deque()

    def ask(self, stream: CallStream) -> bool:
        """Whether a stream may send the rest of its message; if not, it is in the queue."""
        if not stream.uploads:
            if self._taken >= PLACES:
                if stream not in self._waiting:
                    self._waiting.append(stream)
                return False
            self._take(stream)
        return True

    def done(self, stream: CallStream) -> list[CallStream]:
        """A message is complete, or its stream is gone; returns who has the place now."""
        if not stream.uploads:
            if self._waiting and stream in self._waiting:
                self._waiting.remove(stream)
            return []
        stream.uploads = False
        self._taken -= 1
        if not self._waiting:
            return []
        follower = self._waiting.popleft()
        self._take(follower)
        return [follower]

    def _take(self, stream: CallStream) -> None:
        stream.uploads = True
        self._taken += 1
