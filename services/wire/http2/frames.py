"""Pure: HTTP/2 frames as bytes: what an end writes, and the reader that cuts up what it gets.

Follows RFC 9113; section numbers in comments are its. A frame is 9 bytes, length (24 bits), type
(8), flags (8), stream (32, of which the first is reserved), and a payload. Header fields that are
written are literals without indexing (RFC 7541, 6.2.2), so that they can be prepared once.
"""

import struct
from collections.abc import Iterable, Iterator

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

# Settings, 6.5.2.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

# Error codes, 7.
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0, 1, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x7, 0x8, 0x9, 0xB
INADEQUATE_SECURITY = 0xC

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
MAX_WINDOW_BYTES = 2**31 - 1
LAST_STREAM = 2**31 - 1
HEADER_BYTES = 9
PING_BYTES, PRIORITY_BYTES = 8, 5

_SMALL_BYTES = 512
"""Pieces of a frame that are smaller are joined at once: each has about 40 bytes of its own, twenty
times what comes in a piece of two bytes."""

_HEADER = struct.Struct(">IBI")
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")


class ProtocolError(Exception):
    """The peer broke the protocol, and the connection is of no more use.

    Attributes:
        code: HTTP/2 error code to tell it.
    """

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The 9 bytes before a payload of `length` bytes."""
    return _HEADER.pack(length << 8 | kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame with values by identifier."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return frame_header(len(payload), SETTINGS, 0, 0) + payload


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Identifier and value of each setting in a SETTINGS frame.

    Raises:
        ProtocolError: if the payload is no whole number of settings.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError("a SETTINGS frame of the wrong length", FRAME_SIZE_ERROR)
    yield from _SETTING.iter_unpack(payload)


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame of `increment` bytes; stream 0 is the connection."""
    return frame_header(4, WINDOW_UPDATE, 0, stream) + _NUMBER.pack(increment)


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame_header(4, RST_STREAM, 0, stream) + _NUMBER.pack(code)


def ping(opaque: bytes, flags: int = 0) -> bytes:
    """A PING frame of 8 opaque bytes."""
    return frame_header(8, PING, flags, 0) + opaque


def goaway(code: int, last_stream: int = 0, text: bytes = b"") -> bytes:
    """A GOAWAY frame: the last stream that was looked at, an error code and words for people."""
    head = frame_header(8 + len(text), GOAWAY, 0, 0)
    return head + _NUMBER.pack(last_stream) + _NUMBER.pack(code) + text


SETTINGS_ACK = frame_header(0, SETTINGS, ACK, 0)


def read_number(payload: bytes, what: str) -> int:
    """The 32-bit number that is the whole payload of a frame.

    Raises:
        ProtocolError: if the payload is not 4 bytes.
    """
    if len(payload) != _NUMBER.size:
        raise ProtocolError(f"a {what} frame of {len(payload)} bytes", FRAME_SIZE_ERROR)
    value: int = _NUMBER.unpack(payload)[0]
    return value


def literal_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields as literals without indexing and without Huffman coding."""
    return b"".join(b"\0%b%b%b%b" % (_size(k), k, _size(v), v) for k, v in fields)


def _size(text: bytes) -> bytes:
    """The length of a string with a prefix of 7 bits (RFC 7541, 5.1)."""
    length = len(text)
    if length < 127:
        return bytes((length,))
    encoded = bytearray((127,))
    length -= 127
    while length > 127:
        encoded.append(length & 127 | 128)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority (6.1, 6.2).

    Raises:
        ProtocolError: if there is more padding than payload.
    """
    start, end = 0, len(payload)
    if flags & PADDED:
        start = 1
        end -= payload[0] if payload else 1
    if flags & PRIORITIZED:
        start += 5
    if start > end:
        raise ProtocolError("padding longer than its frame")
    return payload[start:end]


class FrameReader:
    """Cuts a stream of bytes into frames, however the bytes arrive."""

    def __init__(self, max_frame_bytes: int) -> None:
        """Takes payloads of at most `max_frame_bytes`."""
        self._max_frame_bytes = max_frame_bytes
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEADER_BYTES

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Takes what arrived.

        Returns:
            Type, flags, stream and payload of each frame that is complete.

        Raises:
            ProtocolError: if a frame is larger than was agreed.
        """
        if self._parts and len(data) < _SMALL_BYTES and len(self._parts[-1]) < _SMALL_BYTES:
            self._parts[-1] += data
        else:
            self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        frames = []
        position, size = 0, len(data)
        self._need = HEADER_BYTES
        while size - position >= HEADER_BYTES:
            length_kind, flags, stream = _HEADER.unpack_from(data, position)
            length = length_kind >> 8
            if length > self._max_frame_bytes:
                raise ProtocolError(f"a frame of {length} bytes", FRAME_SIZE_ERROR)
            start = position + HEADER_BYTES
            if start + length > size:
                self._need = HEADER_BYTES + length
                break
            position = start + length
            frames.append((length_kind & 0xFF, flags, stream & LAST_STREAM, data[start:position]))
        self._parts = [data[position:]] if position < size else []
        self._have = size - position
        return frames
