"""Pure: cuts what a client sends on a stream into messages, and takes compressed ones apart.

A message has a prefix of 5 bytes: whether it is compressed, and its length (32 bits).
"""

import zlib
from collections import deque

PREFIX_BYTES = 5

ENCODINGS = ("identity", "deflate", "gzip")
"""What messages may be compressed with."""

_SMALL_BYTES = 512
"""Parts of a message that are smaller are joined at once: an object has about 40 bytes of its own,
which a client that sends byte by byte would make forty times what it sent."""

_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class MessageTooLargeError(Exception):
    """A message that is over the limit.

    Attributes:
        size_bytes: as it says itself.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes")
        self.size_bytes = size_bytes


class BrokenMessageError(Exception):
    """A message that is not compressed as it says."""


class MessageReader:
    """The messages of one stream.

    Attributes:
        messages: whether it is compressed, and the bytes of each that is complete; whoever reads
            one takes it out.
        unread_bytes: of all that arrived and was not taken out.
        missing_bytes: of a message whose length is known and that is not complete; 0 otherwise.
    """

    __slots__ = (
        "_flag",
        "_head",
        "_inside",
        "_parts",
        "messages",
        "missing_bytes",
        "unread_bytes",
    )

    def __init__(self) -> None:
        """Nothing has arrived."""
        self.messages: deque[tuple[int, bytes]] = deque()
        self.unread_bytes = 0
        self.missing_bytes = 0
        self._head = b""
        self._inside = False
        self._flag = 0
        self._parts: list[bytes] = []

    @property
    def is_inside(self) -> bool:
        """Whether a message has begun that is not complete."""
        return self._inside or bool(self._head)

    def feed(self, payload: bytes, limit_bytes: int) -> None:
        """Takes the payload of a DATA frame.

        Args:
            payload: without padding.
            limit_bytes: largest message.

        Raises:
            MessageTooLargeError: if one is larger. Nothing more may be fed.
        """
        self.unread_bytes += len(payload)
        if self._head:
            payload, self._head = self._head + payload, b""
        position, size = 0, len(payload)
        while position < size:
            if not self._inside:
                start = position + PREFIX_BYTES
                if start > size:
                    self._head = payload[position:]
                    return
                self._flag = payload[position]
                self.missing_bytes = int.from_bytes(payload[position + 1 : start], "big")
                if self.missing_bytes > limit_bytes:
                    raise MessageTooLargeError(self.missing_bytes)
                self._inside = True
                position = start
            end = position + self.missing_bytes
            if end > size:
                self._keep(payload[position:])
                self.missing_bytes = end - size
                return
            body = payload[position:end]
            if self._parts:
                self._parts.append(body)
                body = b"".join(self._parts)
                self._parts.clear()
            self.messages.append((self._flag, body))
            self._inside = False
            self.missing_bytes = 0
            position = end

    def take(self) -> tuple[int, bytes]:
        """Takes the oldest message out.

        Raises:
            IndexError: if none is complete.
        """
        message = self.messages.popleft()
        self.unread_bytes -= len(message[1]) + PREFIX_BYTES
        return message

    def _keep(self, part: bytes) -> None:
        if len(part) < _SMALL_BYTES and self._parts and len(self._parts[-1]) < _SMALL_BYTES:
            part = self._parts.pop() + part
        if part:
            self._parts.append(part)


def decompressed(message: bytes, encoding: str, limit_bytes: int) -> bytes:
    """A compressed message as it was.

    Raises:
        BrokenMessageError: if it is not compressed with that.
        MessageTooLargeError: if it grows over the limit.
    """
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise BrokenMessageError("a compressed message without an encoding that says how")
    inflater = zlib.decompressobj(bits)
    try:
        data = inflater.decompress(message, limit_bytes + 1)
    except zlib.error as error:
        raise BrokenMessageError(f"a message that is not {encoding}: {error}") from error
    if len(data) > limit_bytes:
        raise MessageTooLargeError(len(data))
    if not inflater.eof:
        raise BrokenMessageError(f"a message whose {encoding} ends too early")
    if inflater.unused_data:
        raise BrokenMessageError(f"a message with more after the end of its {encoding}")
    return data
