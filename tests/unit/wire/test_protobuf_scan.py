"""Taking a request body apart without decoding its tensors."""

import pytest

from forebay.v1.inference_pb2 import InferRequest
from services.wire import protobuf_scan


def body(*raw: bytes) -> bytes:
    request = InferRequest(model_name="echo", id="7", raw_input_contents=raw)
    for index, content in enumerate(raw):
        request.inputs.add(name=f"IN{index}", datatype="UINT8", shape=[len(content)])
    return request.SerializeToString()


def test_the_head_is_the_message_without_its_raw_tensors() -> None:
    parts = protobuf_scan.split(body(b"a" * 300, b"b" * 5))
    head = InferRequest.FromString(parts.head)
    assert head.model_name == "echo"
    assert [tensor.name for tensor in head.inputs] == ["IN0", "IN1"]
    assert not head.raw_input_contents


def test_the_spans_are_where_the_raw_tensors_are() -> None:
    whole = body(b"a" * 300, b"", b"b" * 5)
    spans = protobuf_scan.split(whole).raw_spans
    assert [whole[start : start + length] for start, length in spans] == [b"a" * 300, b"", b"b" * 5]


def test_raw_tensors_before_other_fields_are_found_too() -> None:
    whole = body(b"xyz") + InferRequest(model_version="2").SerializeToString()
    parts = protobuf_scan.split(whole)
    assert len(parts.raw_spans) == 1
    assert InferRequest.FromString(parts.head).model_version == "2"


@pytest.mark.parametrize(
    "broken",
    [b"\xff", b"\x0a\xff\xff\xff\xff", b"\x0a\x05ab", b"\x0b", b"\x80" * 12 + b"\x01", b"\x0d\x00"],
    ids=["tag", "length", "short", "group", "long-number", "short-fixed32"],
)
def test_what_is_no_message_is_refused(broken: bytes) -> None:
    with pytest.raises(protobuf_scan.MalformedError):
        protobuf_scan.split(broken)
