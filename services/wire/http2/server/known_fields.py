"""Pure: decodes header blocks that use no table field by field, and remembers the fields.

Calls with a trace, a deadline or a number of their own have a block each, of which all fields but
one or two have come before. hpack takes 24 us for ten fields, 60 if they are Huffman coded.
"""

import hpack

_MEMO_FIELD_BYTES = 128
_MEMO_SIZE = 512

_STATIC_FIELDS = 61
"""In the table that is always there (RFC 7541, appendix A)."""

_MAX_LENGTH_BITS = 28

_OVERHEAD_BYTES = 32
"""What a field counts beyond its name and value (RFC 9113, 6.5.2)."""

Field = tuple[bytes, bytes]


class KnownFields:
    """The fields of one client in blocks without a table: none depends on what came before."""

    def __init__(self, decoder: hpack.Decoder, max_list_bytes: int) -> None:
        """Nothing known.

        Args:
            decoder: decodes what is not known.
            max_list_bytes: most that the fields of a block may count.
        """
        self._decoder = decoder
        self._max_list_bytes = max_list_bytes
        self._memo: dict[bytes, Field] = {}

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a header block that stands alone, or of a client without a table.

        Raises:
            hpack.OversizedHeaderListError: if they are too many.
            hpack.HPACKError: if it cannot be decoded.
        """
        parts = cut(block)
        if parts is None:
            return [(bytes(k), bytes(v)) for k, v in self._decoder.decode(block, raw=True)]
        found, size, memo = [], 0, self._memo
        for part in parts:
            field = memo.get(part)
            if field is None:
                field = self._decoded(part)
            size += len(field[0]) + len(field[1]) + _OVERHEAD_BYTES
            if size > self._max_list_bytes:
                raise hpack.OversizedHeaderListError
            found.append(field)
        return found

    def _decoded(self, part: bytes) -> Field:
        [(name, value)] = self._decoder.decode(part, raw=True)
        field = bytes(name), bytes(value)
        if len(part) <= _MEMO_FIELD_BYTES:
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            self._memo[part] = field
        return field


def cut(block: bytes) -> list[bytes] | None:
    """The bytes of each field of a block; None if it takes more than a look to know them.

    That is the case for changes of the table's size, and for what cannot be decoded.
    """
    parts = []
    position, size = 0, len(block)
    try:
        while position < size:
            start, first = position, block[position]
            position += 1
            if first < 0x80:
                if first & 0x60 == 0x20:
                    return None
                most = 0x3F if first & 0x40 else 0x0F
                index = first & most
                if index == 0:
                    position = _after_string(block, position)
                elif index == most:
                    if block[position] >= 0x80:
                        return None
                    position += 1
                position = _after_string(block, position)
            elif first == 0xFF:
                return None
            parts.append(block[start:position])
    except IndexError:
        return None
    return parts if position == size else None


def stands_alone(block: bytes) -> bool:
    """Whether a block neither uses nor changes the table; False if that is not known."""
    parts = cut(block)
    return parts is not None and all(map(_is_alone, parts))


def _is_alone(part: bytes) -> bool:
    first = part[0]
    if first & 0x80:
        return 0 < first & 0x7F <= _STATIC_FIELDS
    if first & 0x40:
        return False
    index = first & 0x0F
    return (index if index < 0x0F else index + part[1]) <= _STATIC_FIELDS


def _after_string(block: bytes, position: int) -> int:
    """Where a string ends (RFC 7541, 5.1 and 5.2).

    Raises:
        IndexError: if it has no end, or is too long for any block.
    """
    length = block[position] & 0x7F
    position += 1
    if length == 0x7F:
        shift, more = 0, 0x80
        while more:
            if shift > _MAX_LENGTH_BITS:
                raise IndexError
            more = block[position] & 0x80
            length += (block[position] & 0x7F) << shift
            position += 1
            shift += 7
    return position + length
