"""numpy to raw tensors and back."""

import ml_dtypes
import numpy as np
import pytest

from forebay import tensors
from forebay.v1.inference_pb2 import InferTensorContents


@pytest.mark.parametrize("datatype", sorted(tensors.NUMPY_TYPES))
def test_every_fixed_size_type_survives_the_round_trip(datatype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(tensors.NUMPY_TYPES[datatype])
    assert tensors.encode(array)[:2] == (datatype, [2, 3])
    back = tensors.decode(*tensors.encode(array))
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_big_endian_and_strided_arrays_are_sent_little_endian_and_row_major() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    datatype, shape, raw = tensors.encode(array)
    assert (datatype, shape) == ("INT32", [3, 2])
    assert raw == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()


def test_bytes_have_a_four_byte_length_before_each_element() -> None:
    array = np.array(["é", b"\x00\xff\x00", b""], dtype=object)
    datatype, shape, raw = tensors.encode(array)
    assert (datatype, shape) == ("BYTES", [3])
    assert raw == b"\x02\0\0\0\xc3\xa9\x03\0\0\0\x00\xff\x00\0\0\0\0"
    assert tensors.decode(datatype, shape, raw).tolist() == ["é".encode(), b"\x00\xff\x00", b""]


def test_a_bytes_scalar_keeps_its_trailing_zero_bytes() -> None:
    assert tensors.encode(b"a\0")[2] == b"\x02\0\0\0a\0"


def test_text_arrays_are_sent_as_utf_8() -> None:
    assert tensors.encode(np.array(["a", "ü"]))[2] == b"\x01\0\0\0a\x02\0\0\0\xc3\xbc"


def test_bfloat16_goes_out_as_it_is_and_comes_back_as_float32() -> None:
    array = np.array([1.5, -2.0, 3.140625], dtype=ml_dtypes.bfloat16)
    datatype, shape, raw = tensors.encode(array)
    assert (datatype, len(raw)) == ("BF16", 6)
    back = tensors.decode(datatype, shape, raw)
    assert back.dtype == np.float32
    assert back.tolist() == [1.5, -2.0, 3.140625]


def test_an_empty_tensor_has_a_shape_and_no_bytes() -> None:
    assert tensors.encode(np.empty((0, 4), np.float32)) == ("FP32", [0, 4], b"")
    assert tensors.decode("BYTES", [0], b"").shape == (0,)


def test_a_scalar_has_no_dimensions() -> None:
    assert tensors.encode(np.float32(2))[:2] == ("FP32", [])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([1j]), "complex128"),
        (np.array([{}], dtype=object), "dict"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "datetime64"),
    ],
)
def test_what_triton_has_no_type_for_is_refused_by_name(value: object, said: str) -> None:
    with pytest.raises(tensors.TensorError, match=said):
        tensors.encode(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", [2], b"\0" * 7),
        ("BYTES", [1], b"\x05\0\0\0abc"),
        ("BYTES", [1], b"\x05\0"),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("BF16", [2], b"\0\0"),
        ("FP8", [1], b"\0"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype: str, shape: list[int], raw: bytes) -> None:
    with pytest.raises(tensors.TensorError):
        tensors.decode(datatype, shape, raw)


def test_typed_contents_are_read_too() -> None:
    contents = InferTensorContents(int_contents=[1, -2])
    assert tensors.decode_contents("INT8", [2, 1], contents).tolist() == [[1], [-2]]
    contents = InferTensorContents(bytes_contents=[b"x"])
    assert tensors.decode_contents("BYTES", [1], contents).tolist() == [b"x"]
    with pytest.raises(tensors.TensorError, match="0 elements"):
        tensors.decode_contents("FP32", [1], InferTensorContents())
