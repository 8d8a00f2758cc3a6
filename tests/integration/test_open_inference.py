"""Unmodified clients of the Open Inference Protocol against the router."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.grpc.aio as tritongrpc_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.utils import InferenceServerException

from tests.support.chaos_model import write_chaos
from tests.support.forebay_up import ROOT, ForebayUp


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("open-inference")
    with ForebayUp(directory / "state") as up:
        up.forebay("deploy", write_chaos(directory, name="said")).ok()
        yield up


@pytest.fixture
def client(mesh: ForebayUp) -> Iterator[tritongrpc.InferenceServerClient]:
    client = tritongrpc.InferenceServerClient(mesh.mesh["router"])
    yield client
    client.close()


def text(word: str) -> tritongrpc.InferInput:
    tensor = tritongrpc.InferInput("DO", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([word.encode()], dtype=np.object_))
    return tensor


def test_triton_s_client_infers(client: tritongrpc.InferenceServerClient) -> None:
    result = client.infer("said", [text("hello")], request_id="42", client_timeout=60)
    assert result.as_numpy("SAID").tolist() == [b"hello"]
    assert result.get_response().id == "42"
    assert result.get_response().model_name == "said"


def test_triton_s_client_sees_a_live_and_ready_server(
    client: tritongrpc.InferenceServerClient,
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("said")
    assert client.get_server_metadata().name == "triton"


def test_the_model_is_described_as_its_triton_describes_it(
    client: tritongrpc.InferenceServerClient,
) -> None:
    metadata = client.get_model_metadata("said")
    assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [("DO", "BYTES", [1])]
    assert client.get_model_config("said").config.name == "said"
    assert [(m.name, m.state) for m in client.get_model_repository_index().models] == [
        ("said", "READY")
    ]


def test_statistics_have_one_entry_and_count(client: tritongrpc.InferenceServerClient) -> None:
    before = client.get_inference_statistics("said").model_stats
    client.infer("said", [text("counted")], client_timeout=60)
    # Triton counts a request once it has let go of it, which is after its answer.
    deadline_s = time.monotonic() + 30
    while True:
        after = client.get_inference_statistics("said").model_stats
        counted = after[0].inference_count - before[0].inference_count
        if counted or time.monotonic() > deadline_s:
            break
    assert len(before) == len(after) == 1
    assert counted == 1


def test_an_unknown_model_is_not_found_in_triton_s_words(
    client: tritongrpc.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException, match="Request for unknown model") as caught:
        client.infer("nobody", [text("x")], client_timeout=30)
    assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_triton_s_asyncio_client_infers_many_at_once(mesh: ForebayUp) -> None:
    async with tritongrpc_aio.InferenceServerClient(mesh.mesh["router"]) as client:
        results = await asyncio.gather(
            *(client.infer("said", [text(f"{i}")], client_timeout=30) for i in range(50))
        )
    assert [r.as_numpy("SAID")[0] for r in results] == [f"{i}".encode() for i in range(50)]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda c: c.get_system_shared_memory_status(), "shared memory does not reach"),
        (lambda c: c.register_system_shared_memory("r", "/r", 64), "shared memory does not reach"),
        (lambda c: c.get_cuda_shared_memory_status(), "shared memory does not reach"),
        (lambda c: c.load_model("said"), "forebay deploy"),
        (lambda c: c.unload_model("said"), "forebay delete"),
        (lambda c: c.get_trace_settings(), "OTEL_"),
        (lambda c: c.get_log_settings(), "log_level"),
    ],
)
def test_what_makes_no_sense_in_front_of_many_servers_says_so(
    client: tritongrpc.InferenceServerClient, call: object, sentence: str
) -> None:
    with pytest.raises(InferenceServerException, match=sentence) as caught:
        call(client)  # type: ignore[operator]
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_kserve_s_client_infers(mesh: ForebayUp) -> None:
    python = Path(
        os.environ.get("FOREBAY_TEST_KSERVE_PYTHON", ROOT / ".venv-kserve" / "bin" / "python")
    )
    if not python.exists():
        pytest.skip(f"KServe's client has an environment of its own: `make test` makes {python}")
    script = ROOT / "tests" / "support" / "kserve_client.py"
    done = subprocess.run(
        [python, script, mesh.mesh["router"], "said"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["live", "ready", "b'through", "kserve'"]


@pytest.mark.parametrize(
    "service", ["", "forebay.v1.RouterService", "inference.GRPCInferenceService"]
)
def test_health_is_told_by_service_name(mesh: ForebayUp, service: str) -> None:
    with grpc.insecure_channel(mesh.mesh["router"]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=30
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_names_the_services(mesh: ForebayUp) -> None:
    with grpc.insecure_channel(mesh.mesh["router"]) as channel:
        names = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"forebay.v1.RouterService", "inference.GRPCInferenceService"} <= names
