"""Pure: what the header block of a call says: which method, how long, which encoding, and metadata.

Follows gRPC's "gRPC over HTTP2". Names and values are those of RFC 9113, section 8.
"""

import base64
import binascii
import re
from dataclasses import dataclass

import hpack

from services.wire.http2 import frames as h2
from services.wire.http2.server.known_fields import KnownFields, stands_alone

MetadataValue = str | bytes
"""Bytes for keys that end in `-bin`."""

_MEMO_BLOCK_BYTES = 512
_MEMO_FIELDS = 32
_MEMO_SIZE = 256
"""What is remembered: a block of 512 bytes can say 16 KiB, and 256 of those would be megabytes."""

_GIVES_UP_TABLE = re.compile(rb"\x20[^\x20-\x3f]")
"""The table's size becomes 0 (RFC 7541, 6.3), and stays so: no other size follows."""

_NANOSECONDS = {
    "H": 3_600_000_000_000,
    "M": 60_000_000_000,
    "S": 1_000_000_000,
    "m": 1_000_000,
    "u": 1_000,
    "n": 1,
}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_NAME = re.compile(rb"[!-9;-@\[-~]+")
"""Lower case, and nothing that is no visible ASCII (RFC 9113, 8.2.1)."""

_NO_VALUE = re.compile(rb"[\0\r\n]")
"""What no value may hold: it would begin a field of its own wherever values are copied to."""

_GRPC = re.compile(rb"application/grpc(?:[+;]|$)")
"""gRPC, with any message format; gRPC-Web is framed otherwise."""

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_OF_THE_PROTOCOL = frozenset({"te", "content-type", "host"})


class TooManyFieldsError(Exception):
    """A header block that is larger than was agreed; its connection can be used on."""


class MalformedCallError(Exception):
    """A header block that is no request (RFC 9113, 8.1.1); only its stream is of no use."""


@dataclass(frozen=True, slots=True)
class CallFields:
    """What a call's header block says.

    Attributes:
        path: the method, such as `/package.Service/Method`.
        timeout_s: how long the caller waits; None if it sets no limit.
        encoding: how messages are compressed that say they are; empty for not at all.
        metadata: keys and values of everything that is not the protocol's own, in order.
        is_grpc: False for a request that is none of gRPC, by its method or content type.
    """

    path: str
    timeout_s: float | None
    encoding: str
    metadata: tuple[tuple[str, MetadataValue], ...]
    is_grpc: bool


class CallFieldReader:
    """Decodes the header blocks of one client.

    The client is asked to use no table (SETTINGS_HEADER_TABLE_SIZE). Once it has given its table
    up, each block stands for itself, so that what it says can be remembered: most calls of a client
    have the same block. Some clients acknowledge the setting and go on with their table, so only a
    size of 0 at the head of a block counts; until then blocks that use the table are decoded.

    Attributes:
        max_block_bytes: a block that is longer before decoding is not decoded. Encoding saves
            something as a rule, and never more than doubles what is short.
    """

    def __init__(self, max_metadata_bytes: int) -> None:
        """Takes blocks of at most so many bytes, as RFC 9113 counts them (6.5.2)."""
        self.max_block_bytes = 2 * max_metadata_bytes
        self._decoder = hpack.Decoder(max_header_list_size=max_metadata_bytes)
        self._known = KnownFields(self._decoder, max_metadata_bytes)
        self._memo: dict[bytes, CallFields] = {}
        self._has_table = True

    def read(self, block: bytes) -> CallFields:
        """What a header block says.

        Raises:
            TooManyFieldsError: if it is too large.
            MalformedCallError: if it is no request.
            frames.ProtocolError: if it cannot be decoded, and no block after it could be.
        """
        memo = self._memo
        known = memo.get(block)
        if known is not None:
            return known
        fields = _call_fields(self._decode(block))
        small = len(block) <= _MEMO_BLOCK_BYTES and len(fields.metadata) <= _MEMO_FIELDS
        if small and self._stands_alone(block):
            if len(memo) >= _MEMO_SIZE:
                memo.clear()
            memo[block] = fields
        return fields

    def skip(self, block: bytes) -> bool:
        """Decodes a block that says nothing of interest: the table may follow from it.

        Returns:
            Whether it can be trailers: those of a request have no pseudo-header fields.

        Raises:
            TooManyFieldsError: if it is too large.
            frames.ProtocolError: if it cannot be decoded.
        """
        return not any(name.startswith(b":") for name, _ in self._decode(block))

    def _stands_alone(self, block: bytes) -> bool:
        return not self._has_table or stands_alone(block)

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        if self._has_table and _GIVES_UP_TABLE.match(block):
            # Also if the block is too large to be decoded.
            self._give_up_table()
        alone = self._stands_alone(block)
        try:
            if len(block) > self.max_block_bytes:
                raise hpack.OversizedHeaderListError
            if alone:
                return self._known.decode(block)
            fields = [(bytes(k), bytes(v)) for k, v in self._decoder.decode(block, raw=True)]
            if not self._decoder.header_table_size:
                self._give_up_table()
            return fields
        except hpack.OversizedHeaderListError as error:
            if not alone:
                # Decoding stopped midway, so that this end's table is not the client's any more.
                raise h2.ProtocolError(
                    "a header block that is too large", h2.ENHANCE_YOUR_CALM
                ) from error
            raise TooManyFieldsError from error
        except hpack.HPACKError as error:
            # Its text may hold the block, which is nothing for logs.
            name = type(error).__name__
            raise h2.ProtocolError(f"a header block: {name}", h2.COMPRESSION_ERROR) from error

    def _give_up_table(self) -> None:
        self._has_table = False
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0


def _call_fields(decoded: list[tuple[bytes, bytes]]) -> CallFields:
    pseudo: dict[bytes, bytes] = {}
    metadata: list[tuple[str, MetadataValue]] = []
    content_type, timeout, encoding = b"", "", ""
    only_pseudo = True
    for name, value in decoded:
        if _NO_VALUE.search(value):
            raise MalformedCallError(f"the field {name!r} with more than one line")
        if name.startswith(b":"):
            if not only_pseudo or name not in _PSEUDO or name in pseudo:
                raise MalformedCallError(f"the field {name!r} where it must not be")
            pseudo[name] = value
            continue
        only_pseudo = False
        if not _NAME.fullmatch(name) or name in _OF_CONNECTIONS:
            raise MalformedCallError(f"the field {name!r}, which HTTP/2 does not have")
        if name == b"content-type":
            content_type = value
        elif name == b"te" and value != b"trailers":
            raise MalformedCallError("a transfer encoding, which HTTP/2 does not have")
        elif name == b"grpc-timeout":
            timeout = value.decode("latin-1")
        elif name == b"grpc-encoding":
            encoding = value.decode("latin-1")
        else:
            key = name.decode("ascii")
            if not key.startswith("grpc-") and key not in _OF_THE_PROTOCOL:
                metadata.extend(_values(key, value))
    if not {b":method", b":path", b":scheme"} <= pseudo.keys():
        raise MalformedCallError("a request without method, scheme or path")
    return CallFields(
        path=pseudo[b":path"].decode("utf-8", "replace"),
        timeout_s=_seconds(timeout) if timeout else None,
        encoding="" if encoding == "identity" else encoding,
        metadata=tuple(metadata),
        is_grpc=pseudo[b":method"] == b"POST" and _GRPC.match(content_type) is not None,
    )


def _values(key: str, value: bytes) -> list[tuple[str, MetadataValue]]:
    if not key.endswith("-bin"):
        return [(key, value.decode("utf-8", "replace").strip(" "))]
    try:
        # Several values may be joined with commas; padding may be left out.
        return [(key, _bytes(v.strip(b" ").rstrip(b"="))) for v in value.split(b",")]
    except binascii.Error as error:
        raise MalformedCallError(f"the field {key} is not base64") from error


def _bytes(unpadded: bytes) -> bytes:
    return base64.b64decode(unpadded + b"=" * (-len(unpadded) % 4), validate=True)


def _seconds(timeout: str) -> float:
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise MalformedCallError(f"grpc-timeout {timeout[:20]!r} is no timeout")
    return int(found[1]) * _NANOSECONDS[found[2]] / 1e9
