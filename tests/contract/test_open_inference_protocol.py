"""`forebay.v1` bodies are the Open Inference Protocol's, field by field."""

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from tritonclient.grpc import service_pb2

from forebay.v1 import inference_pb2

# Numbers from here on are ours; Triton ignores them.
FIRST_OWN_NUMBER = 100

Shape = dict[int, tuple[object, ...]]


def _shape(message: Descriptor) -> Shape:
    """By field number: name, wire type, cardinality and, for messages, the shape inside."""
    return {
        field.number: _field_shape(field)
        for field in message.fields
        if field.number < FIRST_OWN_NUMBER
    }


def _field_shape(field: FieldDescriptor) -> tuple[object, ...]:
    oneof = field.containing_oneof.name if field.containing_oneof else None
    inside = _shape(field.message_type) if field.message_type else None
    return (field.name, field.type, field.is_repeated, oneof, inside)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (inference_pb2.InferRequest, service_pb2.ModelInferRequest),
        (inference_pb2.InferResponse, service_pb2.ModelInferResponse),
    ],
    ids=["request", "response"],
)
def test_fields_are_the_protocols(ours: type[Message], theirs: type[Message]) -> None:
    assert _shape(ours.DESCRIPTOR) == _shape(theirs.DESCRIPTOR)


def test_a_body_survives_both_readings() -> None:
    theirs = service_pb2.ModelInferRequest(model_name="m", id="1", raw_input_contents=[b"\1\2"])
    theirs.parameters["p"].double_param = 0.5
    tensor = theirs.inputs.add(name="X", datatype="UINT8", shape=[1, 2])
    tensor.parameters["q"].bool_param = True
    ours = inference_pb2.InferRequest.FromString(theirs.SerializeToString())
    assert ours.inputs[0].name == "X"
    assert len(UnknownFieldSet(ours)) == 0
    assert service_pb2.ModelInferRequest.FromString(ours.SerializeToString()) == theirs


def test_own_fields_are_unknown_to_triton() -> None:
    for message in (inference_pb2.InferRequest, inference_pb2.InferResponse):
        own = [f.number for f in message.DESCRIPTOR.fields if f.number >= FIRST_OWN_NUMBER]
        assert own
        assert min(own) >= FIRST_OWN_NUMBER
