"""Pure: a value of a row to an input of a model, and an output back to a value."""

import base64
import binascii
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.batch_files.errors import RowError
from forebay.batch_files.schema import TensorSpec
from forebay.tensors import BF16, BYTES, NUMPY_TYPES

BASE64 = "base64"
"""The one key of an object that stands for bytes: `{"base64": "…"}`."""

_SHOWN = 80


def tensor_of(value: Any, spec: TensorSpec, is_batched: bool) -> NDArray[Any]:
    """The input that a value of a row stands for.

    Args:
        value: a number, a text, bytes, or lists of them, nested as deep as the input has axes; an
            input of one element takes it without a list too.
        spec: the input.
        is_batched: whether the model has a batch axis, which is then added.

    Raises:
        RowError: if the value does not fit; the text names the input.
    """
    try:
        array = _array(value, spec.datatype)
    except (ValueError, TypeError, OverflowError) as error:
        raise RowError(f"input {spec.name}: {_shown(value)} is not {spec.datatype}: {error}") from (
            error
        )
    if array.ndim == 0 and all(size in (1, -1) for size in spec.dims):
        array = array.reshape([1] * len(spec.dims))
    fits = array.ndim == len(spec.dims) and all(
        wanted in (-1, size) for wanted, size in zip(spec.dims, array.shape, strict=True)
    )
    if not fits:
        raise RowError(
            f"input {spec.name}: {_shown(value)} has the shape {list(array.shape)}; a row has "
            f"{list(spec.dims)}, where -1 is any length"
        )
    return array[np.newaxis] if is_batched else array


def value_of(array: NDArray[Any], dims: tuple[int, ...] | None, is_batched: bool) -> Any:
    """The value that one row's output is written as.

    Args:
        array: the output, of one row.
        dims: as the model declares them; None if it does not declare the output.
        is_batched: whether the first axis is the batch.

    Returns:
        One element if the model declares one, else nested lists.
    """
    if is_batched and array.ndim and array.shape[0] == 1:
        array = array[0]
    if dims is not None and all(size == 1 for size in dims) and array.size == 1:
        return array.reshape(-1)[0].item() if array.dtype != object else array.reshape(-1)[0]
    return array.tolist()


def plain(value: Any) -> Any:
    """A value with what JSON has: bytes are text if they are UTF-8, else `{"base64": …}`.

    Numbers that JSON has no word for, such as NaN, become null.

    Raises:
        RowError: if something in it has no such form.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {BASE64: base64.b64encode(value).decode()}
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case np.ndarray() | np.generic():
            return plain(value.tolist())
    raise RowError(f"{type(value).__name__} cannot be written as JSON")


def _array(value: Any, datatype: str) -> NDArray[Any]:
    if datatype == BYTES:
        return _bytes_array(value)
    if datatype == BF16:
        raise ValueError("BF16 has no form in a row")
    wanted = NUMPY_TYPES[datatype]
    array = np.asarray(value)
    if array.size == 0:
        return array.astype(wanted)
    if array.dtype.kind not in "buif":
        raise ValueError("it must be numbers, in lists of equal length")
    if (wanted.kind == "b") != (array.dtype.kind == "b"):
        raise ValueError("true and false are BOOL, and nothing else is")
    if wanted.kind in "iu" and array.dtype.kind == "f":
        raise ValueError("it is no whole number")
    # From the value again: numpy checks the range of Python's numbers, not of an array's.
    return np.array(value, wanted) if not isinstance(value, np.ndarray) else array.astype(wanted)


def _bytes_array(value: Any) -> NDArray[Any]:
    data = _data(value)
    if isinstance(data, list):
        return np.array(data, dtype=object)
    single = np.empty((), dtype=object)
    single[()] = data
    return single


def _data(value: Any) -> Any:
    match value:
        case str():
            return value.encode()
        case bytes():
            return value
        case list():
            return [_data(item) for item in value]
        case dict() if set(value) == {BASE64} and isinstance(value[BASE64], str):
            try:
                return base64.b64decode(value[BASE64], validate=True)
            except binascii.Error as error:
                raise ValueError(f"base64: {error}") from error
    raise ValueError(f'it must be text or {{"{BASE64}": "…"}}, not {type(value).__name__}')


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
