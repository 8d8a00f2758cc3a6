"""Checks of single values, whose errors name the field, its value and what is legal. Pure."""

import math

from google.protobuf.duration_pb2 import Duration

from services.wire.status import invalid_argument

MAX_NANOS = 999_999_999


def whole(field: str, value: int, low: int, high: int) -> None:
    """Checks a whole number.

    Raises:
        StatusError: INVALID_ARGUMENT unless it is `low` to `high`.
    """
    if not low <= value <= high:
        raise invalid_argument(f"{field} = {value}: it must be {low} to {high}")


def above_zero(field: str, value: float, high: float) -> None:
    """Checks a number that must be more than zero.

    Raises:
        StatusError: INVALID_ARGUMENT unless it is finite, above 0 and at most `high`.
    """
    if not (math.isfinite(value) and 0 < value <= high):
        raise invalid_argument(f"{field} = {value:g}: it must be above 0 and at most {high:g}")


def duration(field: str, value: Duration, low_s: float, high_s: float) -> None:
    """Checks a duration.

    Raises:
        StatusError: INVALID_ARGUMENT unless it is `low_s` to `high_s` seconds, where a `low_s` of 0
            is legal.
    """
    value_s = seconds(value)
    if abs(value.nanos) > MAX_NANOS or not low_s <= value_s <= high_s:
        raise invalid_argument(
            f"{field} = {value_s:g} s: it must be {low_s:g} to {high_s:g} seconds"
        )


def duration_above_zero(field: str, value: Duration, high_s: float) -> None:
    """Checks a duration that must be more than nothing.

    Raises:
        StatusError: INVALID_ARGUMENT unless it is above 0 and at most `high_s` seconds.
    """
    value_s = seconds(value)
    if abs(value.nanos) > MAX_NANOS or not 0 < value_s <= high_s:
        raise invalid_argument(
            f"{field} = {value_s:g} s: it must be above 0 and at most {high_s:g} seconds"
        )


def seconds(value: Duration) -> float:
    """A duration in seconds."""
    return float(value.seconds + value.nanos / 1e9)
