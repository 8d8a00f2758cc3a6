"""Pure: finds the raw tensors in a serialised InferRequest without decoding them.

Follows the protobuf encoding guide: a message is a sequence of fields, each a varint tag (field
number << 3 | wire type) and a value whose length the wire type gives.
"""

from dataclasses import dataclass

RAW_INPUT_CONTENTS = 7

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


class MalformedError(ValueError):
    """Bytes that are not a serialised message."""


@dataclass(frozen=True, slots=True)
class BodyParts:
    """A request body, taken apart.

    Attributes:
        head: the message without its raw tensors.
        raw_spans: (offset, length) in bytes of each raw tensor in the body, in order.
    """

    head: bytes
    raw_spans: tuple[tuple[int, int], ...]


def split(body: bytes) -> BodyParts:
    """Takes a serialised InferRequest apart.

    Raises:
        MalformedError: if the fields do not add up to the body.
    """
    head: list[bytes] = []
    raw_spans: list[tuple[int, int]] = []
    position, size, head_start = 0, len(body), 0
    while position < size:
        field_start = position
        tag, position = _varint(body, position)
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            length, position = _varint(body, position)
            if tag >> 3 == RAW_INPUT_CONTENTS:
                head.append(body[head_start:field_start])
                raw_spans.append((position, length))
                head_start = position + length
            position += length
        elif wire_type == _VARINT:
            _, position = _varint(body, position)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:
            raise MalformedError(f"wire type {wire_type} at byte {field_start}")
    if position != size:
        raise MalformedError(f"the last field ends {position - size} bytes after the message")
    head.append(body[head_start:])
    return BodyParts(b"".join(head), tuple(raw_spans))


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = body[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
            if shift > 63:
                raise MalformedError(f"a number longer than 64 bits before byte {position}")
    except IndexError:
        raise MalformedError("the message ends inside a number") from None
