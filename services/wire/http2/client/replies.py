"""Pure: what the header fields and the bytes of a gRPC reply say about how its call ended.

Follows gRPC's "gRPC over HTTP2" and its table from HTTP to gRPC status.
"""

from dataclasses import dataclass
from urllib.parse import unquote

import hpack

from services.wire.http2 import frames as h2

CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 1, 2, 4, 7, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16
"""Status codes of gRPC that a client sets itself."""

PREFIX_BYTES = 5
"""Before a message: one byte that says whether it is compressed, four for its length."""

_MEMO_BLOCK_BYTES = 256
_MEMO_SIZE = 64

_FROM_RESET = {
    h2.REFUSED_STREAM: UNAVAILABLE,
    h2.CANCEL: CANCELLED,
    h2.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    h2.INADEQUATE_SECURITY: PERMISSION_DENIED,
}
_FROM_HTTP = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call ended that has no reply.

    Attributes:
        code: status code of gRPC.
        message: why.
        untouched: the server has not looked at it; it may be called again elsewhere.
        too_large: the server replied, with more than a reply may be.
    """

    code: int
    message: str
    untouched: bool = False
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """What matters of a header block.

    Attributes:
        http_status: 200 if it says none.
        status: status code of gRPC, or None.
        message: text that goes with it.
    """

    http_status: int
    status: int | None
    message: str


class TooManyFieldsError(Exception):
    """A header block that is larger than was agreed; its connection can be used on."""


class FieldReader:
    """Decodes header blocks of a peer that was told to use no table (SETTINGS_HEADER_TABLE_SIZE).

    Without a table each block stands for itself, so that what it says can be remembered: all good
    replies of a server have the same two blocks.
    """

    def __init__(self, max_metadata_bytes: int) -> None:
        """Takes blocks of at most so many bytes, as RFC 9113 counts them (6.5.2)."""
        self._decoder = hpack.Decoder(max_header_list_size=max_metadata_bytes)
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._memo: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """What a header block says.

        Raises:
            TooManyFieldsError: if it is too large.
            frames.ProtocolError: if it cannot be decoded.
        """
        known = self._memo.get(block)
        if known is not None:
            return known
        http_status, status, message = 200, None, ""
        try:
            for name, value in self._decoder.decode(block, raw=True):
                if name == b":status":
                    http_status = int(value)
                elif name == b"grpc-status":
                    status = int(value)
                elif name == b"grpc-message":
                    message = unquote(bytes(value).decode("utf-8", "replace"))
        except hpack.OversizedHeaderListError as error:
            raise TooManyFieldsError from error
        except (hpack.HPACKError, ValueError) as error:
            # Its text may hold the block, which is nothing for logs.
            kind = type(error).__name__
            raise h2.ProtocolError(f"a header block: {kind}", h2.COMPRESSION_ERROR) from error
        fields = Fields(http_status, status, message)
        if len(block) <= _MEMO_BLOCK_BYTES:
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            self._memo[block] = fields
        return fields


def failure_of_reset(code: int) -> Failure:
    """How a call ended whose stream the server reset with an HTTP/2 error code."""
    return Failure(
        _FROM_RESET.get(code, INTERNAL),
        f"the server broke the call off (HTTP/2 error {code})",
        untouched=code == h2.REFUSED_STREAM,
    )


def failure_of_size(parts: list[bytes], limit_bytes: int) -> Failure:
    """How a call ended whose reply, of which these are the first parts, is over the limit."""
    size = int.from_bytes(b"".join(parts)[1:PREFIX_BYTES], "big")
    why = f"the reply is larger than {limit_bytes} bytes: {size} bytes"
    return Failure(RESOURCE_EXHAUSTED, why, too_large=True)


def reply_of(http_status: int, trailers: Fields, parts: list[bytes]) -> bytes | Failure:
    """The serialised reply, or why there is none.

    Args:
        http_status: of the header block before the reply, 200 if there was none.
        trailers: the header block after it.
        parts: the bytes between them.
    """
    if trailers.status is None:
        http_status = trailers.http_status if http_status == 200 else http_status
        if http_status == 200:
            return Failure(UNKNOWN, "the reply has no status")
        code = _FROM_HTTP.get(http_status, UNKNOWN)
        return Failure(code, f"the server answered with HTTP status {http_status}")
    if trailers.status != 0:
        return Failure(trailers.status, trailers.message)
    message = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(message) < PREFIX_BYTES:
        return Failure(INTERNAL, "the reply has no message")
    if message[0]:
        return Failure(INTERNAL, "the reply is compressed, which was not asked for")
    if int.from_bytes(message[1:PREFIX_BYTES], "big") != len(message) - PREFIX_BYTES:
        return Failure(INTERNAL, "the reply is not one message")
    return message[PREFIX_BYTES:]
