"""Pure: writes fields of serialised messages, by the protobuf encoding guide."""

_VARINT, _LENGTH_DELIMITED = 0, 2


def varint(number: int) -> bytes:
    """A number of 0 or more, as protobuf has it."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def number_field(field: int, number: int) -> bytes:
    """A field that holds a number of 0 or more."""
    return varint(field << 3 | _VARINT) + varint(number)


def bytes_head(field: int, size: int) -> bytes:
    """What comes before the content of a field that holds bytes.

    Args:
        field: number of the field.
        size: of the content, in bytes.
    """
    return varint(field << 3 | _LENGTH_DELIMITED) + varint(size)
