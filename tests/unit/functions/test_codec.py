"""What travels between a caller and a function, and what is refused."""

import datetime
import enum
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest

from forebay.functions.runner.codec import CodecError, decode, encode


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        float("inf"),
        "",
        "größer",
        b"\x00\xff",
        [],
        [1, [2, {"a": None}]],
        {},
        {"a": 1, 2: "b", b"c": [True], None: 3, 1.5: 4},
    ],
)
def test_plain_values_come_back_as_they_are(value: Any) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.array([1.5, np.nan], np.float16),
        np.array([True, False]),
        np.array(3, np.uint8),
        np.zeros((0, 4), np.float32),
        np.array([1 + 2j]),
        np.array(["ab", "c"]),
        np.array([b"ab", b""]),
        np.array(["2026-01-02", "NaT"], "datetime64[s]"),
        np.arange(4, dtype=">i4"),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
)
def test_arrays_come_back_with_type_shape_and_values(array: np.ndarray[Any, Any]) -> None:
    back = decode(encode({"x": [array]}))["x"][0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.float64(0.1), np.int8(-3), np.bool_(True), np.str_("ä")]
)
def test_scalars_keep_their_type(scalar: Any) -> None:
    back = decode(encode(scalar))
    assert type(back) is type(scalar)
    assert back == scalar


class _Point(NamedTuple):
    x: int
    y: int


class _Colour(enum.IntEnum):
    RED = 1


class _Named(dict[str, int]):
    pass


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2,)), [1, [2]]),
        (_Point(1, 2), [1, 2]),
        (_Colour.RED, 1),
        (_Named(a=1), {"a": 1}),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
    ],
)
def test_what_is_like_a_plain_value_travels_as_one(value: Any, back: Any) -> None:
    found = decode(encode(value))
    assert found == back
    assert type(found) is type(back)


def _endless() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "builtins.object cannot be sent; legal are None, bool"),
        ({1, 2}, "builtins.set cannot be sent"),
        (datetime.date(2026, 1, 1), "datetime.date cannot be sent"),
        ({"a": [print]}, "builtin_function_or_method cannot be sent"),
        (2**64, "more than 64 bits"),
        ("\ud800", "surrogate"),
        (_endless(), "contains itself"),
        (np.array([object()]), "array or scalar of object cannot be sent"),
        (np.zeros(1, [("a", "i4")]), "cannot be sent; legal are arrays of numbers"),
    ],
)
def test_what_cannot_travel_is_named_with_what_can(value: Any, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x01\x02",
        msgpack.packb({"a": 1})[:-1],
        b"\x81\x91\x01\x02",  # a list as the key of a map
        msgpack.packb(msgpack.ExtType(77, b"")),
        msgpack.packb(msgpack.ExtType(1, b"")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(("<i4", (2,))) + b"123")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(("O", (1,))) + b"12345678")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(("i4,i4", (1,))) + b"12345678")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(("<i4", (-1, -1))) + b"1234")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(("nonsense", (1,))) + b"1234")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb((5, "no")))),
        msgpack.packb(msgpack.ExtType(2, msgpack.packb([1]))),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(("<i4", (0, 2**62, 2**62))))),
    ],
)
def test_bytes_that_are_no_value_are_refused_and_never_anything_else(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)
