"""One request is one trace, from the caller through the queue to Triton and back."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import forebay
from forebay.v1.inference_pb2 import InferRequest
from services.runtime import telemetry
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.otlp_receiver import OtlpReceiver

INFER = "/forebay.v1.RouterService/Infer"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("traces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with ForebayUp(directory / "state") as up:
            up.forebay("deploy", write_chaos(directory, name="said")).ok()
            yield up


def call(mesh: ForebayUp, word: bytes, traceparent: str | None = None) -> dict[str, str]:
    """Infers; returns the trailing metadata, also of a call that failed."""
    request = InferRequest(model_name="said")
    request.inputs.add(name="DO", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(word).to_bytes(4, "little") + word)
    metadata = [("traceparent", traceparent)] if traceparent else []
    with grpc.insecure_channel(mesh.mesh["router"]) as channel:
        ended = channel.unary_unary(INFER).future(
            request.SerializeToString(), timeout=20, metadata=metadata
        )
        return {key: str(value) for key, value in ended.trailing_metadata()}


EXPECTED = {
    "forebay.v1.RouterService/Infer": "forebay-router",
    "publish request": "forebay-router",
    "queue wait": "forebay-node-agent",
    "attempt": "forebay-node-agent",
    "triton ModelInfer": "forebay-node-agent",
    "reply": "forebay-node-agent",
}


async def test_the_spans_of_a_request_form_one_tree(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    trace_id = call(mesh, b"wait:0.05")["forebay-trace-id"]
    await eventually(lambda: set(receiver.trace(trace_id)) >= set(EXPECTED), timeout_s=15)
    trace = receiver.trace(trace_id)
    assert {name: service for name, (service, _) in trace.items()} == EXPECTED
    spans = {name: span for name, (_, span) in trace.items()}
    parents = {
        "publish request": "forebay.v1.RouterService/Infer",
        "queue wait": "publish request",
        "attempt": "publish request",
        "triton ModelInfer": "attempt",
        "reply": "attempt",
    }
    for child, parent in parents.items():
        assert spans[child].parent_span_id == spans[parent].span_id, child
    assert not spans["forebay.v1.RouterService/Infer"].parent_span_id
    took = spans["triton ModelInfer"]
    assert took.end_time_unix_nano - took.start_time_unix_nano >= 50_000_000
    assert spans["queue wait"].end_time_unix_nano <= took.start_time_unix_nano


async def test_a_trace_that_the_caller_began_goes_on(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    trace_id = "ab" * 16
    trailers = call(mesh, b"x", f"00-{trace_id}-{'cd' * 8}-01")
    assert trailers["forebay-trace-id"] == trace_id
    await eventually(lambda: set(receiver.trace(trace_id)) >= set(EXPECTED), timeout_s=15)
    server = receiver.trace(trace_id)["forebay.v1.RouterService/Infer"][1]
    assert server.parent_span_id.hex() == "cd" * 8


async def test_a_trace_that_the_caller_does_not_sample_is_not_recorded(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    unsampled, sampled = "11" * 16, "22" * 16
    call(mesh, b"x", f"00-{unsampled}-{'cd' * 8}-00")
    call(mesh, b"x", f"00-{sampled}-{'cd' * 8}-01")
    await eventually(lambda: set(receiver.trace(sampled)) >= set(EXPECTED), timeout_s=15)
    assert not receiver.trace(unsampled)


async def test_a_failure_is_marked_and_its_trace_id_is_in_the_log(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    trace_id = call(mesh, b"raise")["forebay-trace-id"]
    await eventually(lambda: set(receiver.trace(trace_id)) >= set(EXPECTED), timeout_s=15)
    trace = receiver.trace(trace_id)
    for name in ("forebay.v1.RouterService/Infer", "attempt", "triton ModelInfer"):
        assert trace[name][1].status.code == trace[name][1].status.STATUS_CODE_ERROR, name
    logs = Path(mesh.state_dir / "logs")
    for service in ("router", "node-1"):
        assert trace_id in (logs / f"{service}.log").read_text(), service


async def test_the_client_library_begins_the_trace(
    mesh: ForebayUp, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    telemetry.configure("client")
    try:
        with forebay.Client(mesh.mesh["router"]) as client:
            result = client.infer("said", {"DO": np.array(["x"], dtype=object)}, timeout_s=10)
    finally:
        telemetry.shutdown()
        monkeypatch.undo()
        telemetry.configure("client")
    trace_id = result.trace_id
    assert trace_id is not None

    def from_all() -> bool:
        services = {s for s, span in list(receiver.spans) if span.trace_id.hex() == trace_id}
        assert services == {"forebay-client", "forebay-router", "forebay-node-agent"}
        return True

    await eventually(from_all, timeout_s=15)
