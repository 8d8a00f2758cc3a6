"""What a body must be before it is queued."""

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.inference_pb2 import InferRequest
from services.wire import request_check
from services.wire.limits import CLAIM_THRESHOLD_BYTES, MAX_BODY_BYTES
from services.wire.outcomes import OutcomeError


def request(size: int = 8, name: str = "echo") -> InferRequest:
    made = InferRequest(model_name=name, raw_input_contents=[b"x" * size])
    made.inputs.add(name="IN", datatype="UINT8", shape=[size])
    return made


def refusal(body: bytes) -> str:
    with pytest.raises(OutcomeError) as caught:
        request_check.check(body)
    assert caught.value.outcome == OUTCOME_INVALID_ARGUMENT
    return caught.value.message


def test_a_small_body_stays_whole() -> None:
    assert request_check.check(request().SerializeToString()).parts is None


def test_a_large_body_is_taken_apart() -> None:
    checked = request_check.check(request(CLAIM_THRESHOLD_BYTES).SerializeToString())
    assert checked.parts is not None
    assert checked.parts.raw_spans[0][1] == CLAIM_THRESHOLD_BYTES


def test_a_large_body_with_an_empty_tensor_stays_whole() -> None:
    made = request(CLAIM_THRESHOLD_BYTES)
    made.inputs.add(name="EMPTY", datatype="UINT8", shape=[0])
    made.raw_input_contents.append(b"")
    assert request_check.check(made.SerializeToString()).parts is None


def test_the_limit_is_named_to_who_exceeds_it() -> None:
    assert "8388608" in refusal(request(MAX_BODY_BYTES).SerializeToString())


@pytest.mark.parametrize("size", [8, CLAIM_THRESHOLD_BYTES])
def test_a_truncated_body_is_malformed(size: int) -> None:
    assert "not a serialised InferRequest" in refusal(request(size).SerializeToString()[:-3])


@pytest.mark.parametrize(
    "name", ["", "a.b", "a*", ">", "a b", "../etc", "a/b", "x" * 10_000, "größe", "A", "-a", "1a"]
)
def test_a_name_that_cannot_be_a_deployment_is_refused_with_what_can(name: str) -> None:
    message = refusal(request(name=name).SerializeToString())
    assert "a name is 1 to 63" in message
    assert len(message) < 400


def test_shared_memory_is_refused_wherever_it_is_asked_for() -> None:
    for where in ("request", "input", "output"):
        made = request()
        made.outputs.add(name="OUT")
        holder = {"request": made, "input": made.inputs[0], "output": made.outputs[0]}[where]
        holder.parameters["shared_memory_region"].string_param = "other"
        assert "shared memory does not reach" in refusal(made.SerializeToString())


@pytest.mark.parametrize("key", ["triton_enable_empty_final_response", "sequence_id"])
def test_reserved_parameters_are_refused(key: str) -> None:
    made = request()
    made.parameters[key].int64_param = 1
    assert key in refusal(made.SerializeToString())


def test_other_parameters_pass() -> None:
    made = request()
    made.parameters["temperature"].double_param = 0.5
    made.parameters["priority"].uint64_param = 1
    assert request_check.check(made.SerializeToString()).deployment == "echo"


def test_a_long_idempotency_key_is_refused() -> None:
    made = request()
    made.idempotency_key = "k" * 256
    assert "at most 255" in refusal(made.SerializeToString())
