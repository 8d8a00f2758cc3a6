"""Pure: tells a model for how long its attempt may run, without decoding the request.

Follows the protobuf encoding guide: an entry of a map is a message with the key as field 1 and the
value as field 2, and a field that is appended to a serialised message is as good as any other. Of
two entries with one key the last counts.
"""

from functools import lru_cache

from services.node_agent.protobuf_fields import bytes_head, number_field

NAME = "forebay_attempt_timeout_ms"
"""Name of the parameter; an int64."""

_PARAMETERS, _KEY, _VALUE, _INT64_PARAM = 4, 1, 2, 2


def with_timeout(body: bytes, timeout_ms: int) -> bytes:
    """A request with the parameter.

    Args:
        body: a serialised InferRequest.
        timeout_ms: how long the attempt may run; at least 1.
    """
    return body + _entry(timeout_ms)


@lru_cache(maxsize=256)
def _entry(timeout_ms: int) -> bytes:
    value = _field(_VALUE, number_field(_INT64_PARAM, timeout_ms))
    return _field(_PARAMETERS, _field(_KEY, NAME.encode()) + value)


def _field(number: int, content: bytes) -> bytes:
    return bytes_head(number, len(content)) + content
