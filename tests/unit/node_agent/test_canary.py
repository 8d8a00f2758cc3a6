"""The inference a replica must pass."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.model_config_pb2 import ModelConfig

from services.node_agent.triton import canary


def made(config: str) -> triton.ModelInferRequest:
    parsed = text_format.Parse(config, ModelConfig())
    return triton.ModelInferRequest.FromString(canary.zeros_request("m", parsed))


def test_variable_dimensions_are_one_and_a_batch_dimension_is_added() -> None:
    request = made('max_batch_size: 4 input { name: "X" data_type: TYPE_FP32 dims: [-1, 3] }')
    assert list(request.inputs[0].shape) == [1, 1, 3]
    assert request.raw_input_contents[0] == bytes(12)


def test_strings_are_empty_strings() -> None:
    request = made('input { name: "X" data_type: TYPE_STRING dims: [2] }')
    assert request.inputs[0].datatype == "BYTES"
    assert request.raw_input_contents[0] == bytes(8)


def test_optional_inputs_are_left_out() -> None:
    request = made('input { name: "X" data_type: TYPE_INT8 dims: [1] optional: true }')
    assert not request.inputs


def test_an_input_without_a_type_is_named() -> None:
    with pytest.raises(canary.UnknownTypeError, match="input X"):
        made('input { name: "X" dims: [1] }')
