"""Values to and from bytes: msgpack, with numpy arrays and scalars as extension types.

| Python | comes back as |
|---|---|
| None, bool, int (64 bits), float, str, bytes, list, dict | itself |
| tuple | list |
| bytearray, memoryview | bytes |
| numpy array of numbers, booleans, complex numbers, fixed-width text or bytes, dates | itself: same type, shape and values; writable, in C order |
| numpy scalar of one of those | itself |

Keys of a dict may be any of these but lists, dicts and arrays. Subclasses of list, tuple, dict, str,
bytes, int and float travel as what they derive from. Nothing else travels: neither side ever makes
an object of a class that the other one names.
"""  # noqa: E501

import math
from typing import Any

import msgpack
import numpy as np

LEGAL = (
    "None, bool, int of 64 bits, float, str, bytes, list, tuple (comes back as a list), dict, and "
    "numpy arrays and scalars of numbers, booleans, text or dates"
)

_ARRAY = 1
_SCALAR = 2
_BASES: tuple[Any, ...] = (dict, str, bytes, int, float)
_KINDS = frozenset("biufcSUmM")
_MAX_DEPTH_SAID = "nested deeper than 500 levels, or it contains itself"


class CodecError(ValueError):
    """A value that cannot travel, or bytes that are no value; the text says what is legal."""


def encode(value: Any) -> bytes:
    """The bytes of a value.

    Raises:
        CodecError: if it, or something in it, is none of the legal types.
    """
    try:
        packed: bytes = msgpack.packb(value, default=_plain, strict_types=True)
    except CodecError:
        raise
    except OverflowError:
        raise CodecError(
            f"an int of more than 64 bits cannot be sent; legal are {LEGAL}; send it as text"
        ) from None
    except UnicodeEncodeError as error:
        raise CodecError(
            f"text with a lone surrogate cannot be sent ({error.reason}); send it as bytes"
        ) from None
    except (ValueError, RecursionError) as error:
        said = _MAX_DEPTH_SAID if "recursion" in str(error) else str(error)
        raise CodecError(f"the value cannot be sent: {said}") from None
    return packed


def decode(data: bytes) -> Any:
    """The value of bytes that `encode` made; arrays are writable copies.

    Raises:
        CodecError: if they are something else.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_special, strict_map_key=False)
    except CodecError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        # A list as the key of a map is a TypeError.
        raise CodecError(
            f"{len(data)} bytes are not msgpack: {error or type(error).__name__}"
        ) from None


def _plain(value: Any) -> Any:
    """What a value that is not exactly of a type of msgpack's travels as."""
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, np.ndarray):
        return _packed_array(value)
    if isinstance(value, np.generic):
        return _packed_scalar(value)
    for base in _BASES:
        if isinstance(value, base):
            return base(value)
    kind = type(value)
    raise CodecError(f"{kind.__module__}.{kind.__qualname__} cannot be sent; legal are {LEGAL}")


def _packed_array(array: np.ndarray[Any, Any]) -> msgpack.ExtType:
    _check(array.dtype)
    head = msgpack.packb((array.dtype.str, array.shape))
    return msgpack.ExtType(_ARRAY, head + array.tobytes())


def _packed_scalar(scalar: np.generic) -> msgpack.ExtType:
    _check(scalar.dtype)
    return msgpack.ExtType(_SCALAR, msgpack.packb(scalar.dtype.str) + scalar.tobytes())


def _check(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in _KINDS:
        raise CodecError(
            f"a numpy array or scalar of {dtype} cannot be sent; legal are arrays of numbers, "
            "booleans, complex numbers, text and bytes of fixed width, and dates"
        )


def _special(code: int, data: bytes) -> Any:
    """The array or scalar in an extension type."""
    if code not in (_ARRAY, _SCALAR):
        raise CodecError(f"extension type {code} of msgpack is not one of ours")
    unpacker = msgpack.Unpacker(use_list=True)
    unpacker.feed(data)
    head = unpacker.unpack()
    name, shape = head if code == _ARRAY else (head, ())
    dtype = np.dtype(name)
    _check(dtype)
    raw = memoryview(data)[unpacker.tell() :]
    count = math.prod(shape)
    if len(raw) != count * dtype.itemsize:
        raise CodecError(f"{len(raw)} bytes in an array of {dtype} and shape {list(shape)}")
    if not count or not dtype.itemsize:
        return np.zeros(shape, dtype)
    array = np.frombuffer(raw, dtype).reshape(shape)
    return array.copy() if code == _ARRAY else array[()]
