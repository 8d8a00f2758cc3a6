"""The time limit of an attempt, told to the model."""

import pytest

from forebay.v1.inference_pb2 import InferRequest
from services.node_agent.tasks.timeout_parameter import NAME, with_timeout
from services.wire.triton_stubs import service_pb2 as triton


def request() -> InferRequest:
    made = InferRequest(model_name="m", id="7", raw_input_contents=[b"abc"])
    made.parameters["mine"].string_param = "kept"
    made.inputs.add(name="X", datatype="BYTES", shape=[1])
    return made


@pytest.mark.parametrize("timeout_ms", [1, 127, 128, 30_000, 24 * 3600 * 1000, 2**53])
def test_the_parameter_is_added_and_nothing_else_changes(timeout_ms: int) -> None:
    parsed = InferRequest.FromString(with_timeout(request().SerializeToString(), timeout_ms))
    assert parsed.parameters[NAME].int64_param == timeout_ms
    del parsed.parameters[NAME]
    assert parsed == request()


def test_triton_reads_it_too() -> None:
    body = with_timeout(request().SerializeToString(), 1500)
    parsed = triton.ModelInferRequest.FromString(body)
    assert parsed.parameters[NAME].int64_param == 1500
    assert parsed.parameters["mine"].string_param == "kept"


def test_a_caller_cannot_say_otherwise() -> None:
    forged = request()
    forged.parameters[NAME].int64_param = 10**9
    parsed = InferRequest.FromString(with_timeout(forged.SerializeToString(), 5))
    assert parsed.parameters[NAME].int64_param == 5
