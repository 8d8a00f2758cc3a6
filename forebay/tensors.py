"""numpy arrays to and from tensors as Triton writes them: row-major, little-endian, raw bytes.

| Triton | numpy |
|---|---|
| BOOL, INT8 … INT64, UINT8 … UINT64, FP16, FP32, FP64 | bool, int8 … int64, uint8 … uint64, float16, float32, float64 |
| BF16 | in: `ml_dtypes.bfloat16`; out: float32, which holds every BF16 value exactly |
| BYTES | in: object arrays of bytes or str, `S` and `U` arrays; out: object arrays of bytes |
"""  # noqa: E501

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forebay.v1.inference_pb2 import InferTensorContents

BYTES = "BYTES"
BF16 = "BF16"

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_DATATYPES = {dtype: name for name, dtype in NUMPY_TYPES.items()}
_LENGTH = struct.Struct("<I")


class TensorError(ValueError):
    """An array that is no tensor, or bytes that don't fit a tensor's shape and type."""


def encode(value: ArrayLike) -> tuple[str, list[int], bytes]:
    """Datatype, shape and raw bytes of an array of any shape.

    Args:
        value: an array, or what numpy makes one of. `S` arrays lose trailing zero bytes, as always
            in numpy: use an object array for binary data.

    Raises:
        TensorError: if Triton has no such element type.
    """
    # bytes would become an `S` array, which drops trailing zero bytes.
    array = np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)
    shape = list(array.shape)
    if array.dtype.kind in "OSU":
        return BYTES, shape, _encode_bytes(array)
    if array.dtype.name == "bfloat16":
        return BF16, shape, array.view(np.uint16).astype("<u2", copy=False).tobytes()
    little_endian = array.dtype.newbyteorder("<")
    datatype = _DATATYPES.get(little_endian)
    if datatype is None:
        raise TensorError(
            f"arrays of {array.dtype} cannot be sent: legal are {', '.join(NUMPY_TYPES)} "
            "and, as an object array, BYTES"
        )
    return datatype, shape, array.astype(little_endian, copy=False).tobytes()


def decode(datatype: str, shape: Sequence[int], raw: bytes) -> NDArray[Any]:
    """The array of a tensor's raw bytes.

    Returns:
        An array of `shape`. Except for BYTES and BF16 it is a read-only view of `raw`: `.copy()`
        makes a writable one.

    Raises:
        TensorError: if the bytes don't fit.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return _object_array(_split(raw, count), shape)
    if datatype == BF16:
        _check_size(BF16, shape, len(raw), 2 * count)
        wide = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    dtype = NUMPY_TYPES.get(datatype)
    if dtype is None:
        raise TensorError(f"{datatype!r} is no datatype of Triton's")
    _check_size(datatype, shape, len(raw), dtype.itemsize * count)
    return np.frombuffer(raw, dtype).reshape(shape)


def decode_contents(
    datatype: str, shape: Sequence[int], contents: InferTensorContents
) -> NDArray[Any]:
    """The array of a tensor whose elements are typed values.

    Raises:
        TensorError: if their number doesn't fit the shape.
    """
    filled = contents.ListFields()
    values: Sequence[Any] = filled[0][1] if filled else ()
    if len(values) != math.prod(shape):
        raise TensorError(f"{len(values)} elements in a tensor of shape {list(shape)}")
    if datatype == BYTES:
        return _object_array(list(values), shape)
    return np.array(values, dtype=NUMPY_TYPES.get(datatype, np.dtype("f4"))).reshape(shape)


def _encode_bytes(array: NDArray[Any]) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        match element:
            case bytes():
                data = element
            case str():
                data = element.encode()
            case bytearray() | memoryview():
                data = bytes(element)
            case _:
                raise TensorError(
                    f"an object array holds {type(element).__name__}: its elements must be bytes "
                    "or str"
                )
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _split(raw: bytes, count: int) -> list[bytes]:
    elements: list[bytes] = []
    offset = 0
    while offset < len(raw):
        start = offset + _LENGTH.size
        if start > len(raw):
            raise TensorError("a BYTES tensor ends inside a length")
        offset = start + _LENGTH.unpack_from(raw, offset)[0]
        if offset > len(raw):
            raise TensorError("a BYTES tensor ends inside an element")
        elements.append(raw[start:offset])
    if len(elements) != count:
        raise TensorError(f"{len(elements)} elements in a BYTES tensor of {count}")
    return elements


def _object_array(elements: list[bytes], shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def _check_size(datatype: str, shape: Sequence[int], actual: int, expected: int) -> None:
    if actual != expected:
        raise TensorError(
            f"{actual} bytes in a {datatype} tensor of shape {list(shape)}: it needs {expected}"
        )
