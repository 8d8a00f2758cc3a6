"""Pure: what a server writes: header blocks of replies, and trailers with a status and metadata.

Follows gRPC's "gRPC over HTTP2". Field names are lower case; values that are no header text are
percent-encoded (`grpc-message`) or base64 (`-bin`).
"""

import base64
from collections.abc import Iterable
from urllib.parse import quote_from_bytes

from services.wire.http2.frames import literal_fields

_STATUS_200 = b"\x88"
"""Index 8 of the static table (RFC 7541, appendix A)."""

INITIAL = _STATUS_200 + literal_fields([(b"content-type", b"application/grpc")])
"""The header block before the first message, without metadata."""

_GOOD = literal_fields([(b"grpc-status", b"0")])

_VISIBLE = bytes(c if 0x20 <= c < 0x7F else ord("?") for c in range(256))
"""What text becomes in a header: other characters could begin a field of their own."""

_PLAIN = "".join(chr(c) for c in range(0x20, 0x7F) if c != ord("%"))

Metadata = Iterable[tuple[str, str | bytes]]


def metadata_fields(metadata: Metadata) -> bytes:
    """Header fields for metadata; of text, what no header may hold becomes `?`."""
    return literal_fields(
        (key.lower().encode("ascii", "replace"), _value(key, v)) for key, v in metadata
    )


def trailers(status: int, message: str, metadata: Metadata) -> bytes:
    """The header block that ends a call.

    Args:
        status: code of gRPC, 0 to 16.
        message: text that goes with it, of any characters.
        metadata: the caller's own trailing fields.
    """
    block = _GOOD if status == 0 else literal_fields([(b"grpc-status", b"%d" % status)])
    if message:
        quoted = quote_from_bytes(message.encode("utf-8", "replace"), _PLAIN)
        block += literal_fields([(b"grpc-message", quoted.encode())])
    if metadata:
        block += metadata_fields(metadata)
    return block


def trailers_only(block: bytes) -> bytes:
    """The header block of a call that ends without a message, from its trailers."""
    return INITIAL + block


def not_grpc() -> bytes:
    """The header block of an answer to a request that is none of gRPC."""
    return literal_fields([(b":status", b"415"), (b"content-length", b"0")])


def _value(key: str, value: str | bytes) -> bytes:
    if key.endswith(("-bin", "-BIN")):
        raw = value.encode() if isinstance(value, str) else value
        return base64.b64encode(raw).rstrip(b"=")
    text = value.encode("ascii", "replace") if isinstance(value, str) else value
    # Spaces at the ends are malformed (RFC 9113, 8.2.1).
    return text.translate(_VISIBLE).strip(b" ")
