"""Pure: tells a model for how long its attempt may run, without decoding the request.

Follows the protobuf encoding guide: an entry of a map is a message with the key as field 1 and the
value as field 2, and a field that is appended to a serialised message is as good as any other. Of
two entries with one key the last counts.
"""

from functools import lru_cache

NAME = "forebay_attempt_timeout_ms"
"""Name of the parameter; an int64."""

_PARAMETERS, _KEY, _VALUE, _INT64_PARAM = 4, 1, 2, 2
_VARINT, _LENGTH_DELIMITED = 0, 2


def with_timeout(body: bytes, timeout_ms: int) -> bytes:
    """A request with the parameter.

    Args:
        body: a serialised InferRequest.
        timeout_ms: how long the attempt may run; at least 1.
    """
    return body + _entry(timeout_ms)


@lru_cache(maxsize=256)
def _entry(timeout_ms: int) -> bytes:
    value = _field(_VALUE, _varint(_INT64_PARAM << 3 | _VARINT) + _varint(timeout_ms))
    return _field(_PARAMETERS, _field(_KEY, NAME.encode()) + value)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
