"""Every bad request gets its own sentence, and the next good one works."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

import forebay
from forebay.v1.inference_pb2 import InferRequest, InferResponse
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp

INFER = "/forebay.v1.RouterService/Infer"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("bad-input")
    with ForebayUp(directory / "state", "--slots", "3") as up:
        up.forebay("deploy", write_chaos(directory, name="said", request_timeout_s=20)).ok()
        yield up


@pytest.fixture(scope="module")
def channel(mesh: ForebayUp) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(mesh.mesh["router"], options=options) as channel:
        yield channel


def good(word: bytes = b"hello") -> InferRequest:
    request = InferRequest(model_name="said")
    request.inputs.add(name="DO", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(word).to_bytes(4, "little") + word)
    return request


def changed(change: Callable[[InferRequest], object]) -> bytes:
    request = good()
    change(request)
    return request.SerializeToString()


def refused(channel: grpc.Channel, body: bytes, method: str = INFER) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(body, timeout=60)
    # Nothing is broken for the next caller.
    answer = channel.unary_unary(method)(good().SerializeToString(), timeout=60)
    assert InferResponse.FromString(answer).raw_output_contents[0][4:] == b"hello"
    return caught.value


def _wrong_shape(request: InferRequest) -> None:
    request.inputs[0].shape[:] = [7]


def _wrong_type(request: InferRequest) -> None:
    request.inputs[0].datatype = "FP32"


def _wrong_name(request: InferRequest) -> None:
    request.inputs[0].name = "NOBODY"


def _no_inputs(request: InferRequest) -> None:
    del request.inputs[:]
    del request.raw_input_contents[:]


def _bytes_that_do_not_fit(request: InferRequest) -> None:
    request.raw_input_contents[0] = b"\xff\xff\xff\xff short"


def _no_contents(request: InferRequest) -> None:
    del request.raw_input_contents[:]


def _unknown_version(request: InferRequest) -> None:
    request.model_version = "9"


def _shared_memory(request: InferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "of somebody"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_wrong_shape, "shape"),
        (_wrong_type, "TYPE_STRING|data-type|BYTES"),
        (_wrong_name, "NOBODY"),
        (_no_inputs, "expected 1 inputs"),
        (_bytes_that_do_not_fit, "DO"),
        (_no_contents, "DO|said"),
        (_unknown_version, "version"),
        (_shared_memory, "shared memory does not reach"),
    ],
)
@pytest.mark.parametrize("method", [INFER, MODEL_INFER])
def test_what_does_not_fit_the_model_is_an_invalid_argument(
    channel: grpc.Channel, change: Callable[[InferRequest], object], words: str, method: str
) -> None:
    error = refused(channel, changed(change), method)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    assert re.search(words, error.details()), error.details()


@pytest.mark.parametrize("body", [b"\xff\xff", good().SerializeToString()[:-2], b"\x0a\x05abc"])
def test_what_is_no_message_is_an_invalid_argument(channel: grpc.Channel, body: bytes) -> None:
    error = refused(channel, body)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a serialised InferRequest" in error.details()


@pytest.mark.parametrize("name", ["a.b", "*", ">", "a b", "../../etc", "x" * 10_000, "größe", ""])
def test_a_name_that_cannot_be_is_an_invalid_argument(channel: grpc.Channel, name: str) -> None:
    error = refused(channel, changed(lambda r: setattr(r, "model_name", name)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "a name is 1 to 63" in error.details()


def test_an_unknown_deployment_is_not_found(channel: grpc.Channel) -> None:
    error = refused(channel, changed(lambda r: setattr(r, "model_name", "nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "nobody" in error.details()


@pytest.mark.parametrize("size", [8 * 1024 * 1024, 9_000_000, 20_000_000])
def test_a_body_over_the_limit_is_told_the_limit(channel: grpc.Channel, size: int) -> None:
    error = refused(channel, good(b"x" * size).SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "8388608" in error.details()


@pytest.mark.parametrize("size", [64 * 1024, 1_000_000, 8 * 1024 * 1024 - 100])
def test_a_body_within_the_limit_goes_both_ways(channel: grpc.Channel, size: int) -> None:
    body = good(b"x" * size).SerializeToString()
    answer = InferResponse.FromString(channel.unary_unary(INFER)(body, timeout=60))
    assert answer.raw_output_contents[0][4:] == b"x" * size
    assert (answer.index, answer.final) == (0, True)


def test_a_large_body_with_typed_contents_goes_through(channel: grpc.Channel) -> None:
    request = InferRequest(model_name="said")
    request.inputs.add(name="DO", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        b"y" * 300_000
    )
    answer = channel.unary_unary(INFER)(request.SerializeToString(), timeout=60)
    assert InferResponse.FromString(answer).raw_output_contents[0][4:] == b"y" * 300_000


def test_a_deadline_that_has_passed_is_told_at_once(channel: grpc.Channel) -> None:
    started_s = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(good(b"wait:5").SerializeToString(), timeout=0.001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The model would take five.
    assert time.monotonic() - started_s < 4


def test_errors_carry_the_request_the_trace_and_details(channel: grpc.Channel) -> None:
    trace = "0123456789abcdef0123456789abcdef"
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(
            b"\xff",
            timeout=60,
            metadata=[("traceparent", f"00-{trace}-0123456789abcdef-01")],
        )
    trailers = dict(caught.value.trailing_metadata())
    assert trailers["forebay-trace-id"] == trace
    assert trace in caught.value.details()
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.metadata["trace_id"]) == ("INVALID_ARGUMENT", trace)
    assert info.metadata["request_id"] == trailers["forebay-request-id"]


def test_no_ready_replica_is_told_at_the_deadline_with_the_reason(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    file = write_chaos(tmp_path, name="broken", model="raise ImportError('no such flour')")
    ran = mesh.forebay("deploy", file, "--timeout-s", "90")
    assert ran.code == 1
    assert "no such flour" in ran.err
    with forebay.Client(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.DeadlineExceededError, match="0 of 1 are ready") as caught:
            client.infer("broken", {"DO": np.array(["x"], dtype=object)}, timeout_s=2)
    assert "no such flour" in str(caught.value)
    status = mesh.forebay("status", "broken", "-o", "json").out
    assert "no such flour" in status
    mesh.forebay("delete", "broken").ok()


def test_a_model_that_was_mended_is_tried_again_at_once(mesh: ForebayUp, tmp_path: Path) -> None:
    file = write_chaos(tmp_path, name="mended", model="raise ImportError('no such flour')")
    assert mesh.forebay("deploy", file, "--timeout-s", "90").code == 1
    file = write_chaos(tmp_path, name="mended")
    mesh.forebay("deploy", file, "--timeout-s", "90").ok()
    with forebay.Client(mesh.mesh["router"]) as client:
        result = client.infer("mended", {"DO": np.array(["now"], dtype=object)}, timeout_s=60)
    assert result["SAID"][0] == b"now"
    mesh.forebay("delete", "mended").ok()


async def test_a_new_model_replaces_the_old_without_an_error_to_callers(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    file = write_chaos(tmp_path, name="rolled")
    mesh.forebay("deploy", file).ok()
    source = (tmp_path / "model" / "1" / "model.py").read_text()
    new = source.replace("said = np.array([word]", "said = np.array([b'new']")
    write_chaos(tmp_path, name="rolled", model=new)
    answers: list[bytes] = []
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:

        async def answered_by_the_new_one() -> bool:
            result = await client.infer("rolled", {"DO": np.array(["old"], object)}, timeout_s=30)
            answers.append(result["SAID"][0])
            return answers[-1] == b"new"

        assert not await answered_by_the_new_one()
        mesh.forebay("deploy", file, "--no-wait").ok()
        await eventually(answered_by_the_new_one, timeout_s=60)
    assert set(answers) == {b"old", b"new"}
    mesh.forebay("delete", "rolled").ok()
