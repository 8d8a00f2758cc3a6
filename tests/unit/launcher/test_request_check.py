"""A request says names and numbers; what is anything else is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.v1.launcher_pb2 import StartReplicaRequest, StopReplicaRequest
from services.launcher import request_check
from services.launcher.refusal import Kind, RefusedError
from services.wire.offered_volumes import OfferedVolume

IMAGE = "sha256:" + "ab" * 32
GPU = "GPU-0a1b2c3d-0000-1111-2222-333344445555"
OTHER_GPU = "GPU-0a1b2c3d-0000-1111-2222-333344445556"
MIG = "MIG-0a1b2c3d-0000-1111-2222-333344445555"
OFFERED = {
    "data": OfferedVolume("data", Path("/srv/data")),
    "weights": OfferedVolume("weights", Path("/srv/weights"), read_only=True),
}

Change = Callable[[StartReplicaRequest], object]


def request(**fields: object) -> StartReplicaRequest:
    """A request that is legal."""
    given: dict[str, object] = {
        "replica_id": "iris-0a1b2c3d",
        "deployment_id": "iris",
        "image_id": IMAGE,
        "model": "iris-0123456789abcdef",
        "access_key": "k" * 32,
    }
    return StartReplicaRequest(**{**given, **fields})  # type: ignore[arg-type]


def check(wanted: StartReplicaRequest) -> request_check.CheckedReplica:
    return request_check.check_start(wanted, OFFERED, 1 << 40)


def refusal(wanted: StartReplicaRequest) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check(wanted)
    return caught.value


def test_a_legal_request_passes_whole() -> None:
    wanted = request(
        gpu_uuids=[GPU], gpus=0.5, gpu_memory_bytes=1 << 30, cpus=2.5, memory_bytes=1 << 30,
        variables={"MODE": "fast", "FOREBAY_CPUS": "2.5"}, environment_id="0f" * 16, generation=7,
        volumes=[StartReplicaRequest.ReplicaVolume(name="weights", read_only=True)],
    )  # fmt: skip
    checked = check(wanted)
    assert (checked.replica_id, checked.deployment_id, checked.model) == (
        "iris-0a1b2c3d", "iris", "iris-0123456789abcdef",
    )  # fmt: skip
    assert checked.gpu_uuids == (GPU,)
    assert checked.gpus == 0.5
    assert checked.variables == {"MODE": "fast", "FOREBAY_CPUS": "2.5"}
    assert checked.volumes == (
        request_check.CheckedVolume("weights", "/srv/weights", read_only=True),
    )


@pytest.mark.parametrize(
    "name",
    [
        "", "iris", "iris-", "-0a1b2c3d", "iris-0a1b2c3", "iris-0A1B2C3D", "../iris-0a1b2c3d",
        "a/b-0a1b2c3d", "iris-0a1b2c3d/..", "Iris-0a1b2c3d", "iris\n-0a1b2c3d", "iris-0a1b2c3d\n",
        "i" * 100 + "-0a1b2c3d", "iris--0a1b2c3d\0",
    ],
)  # fmt: skip
def test_what_is_no_replica_is_refused(name: str) -> None:
    error = refusal(request(replica_id=name, deployment_id=name[:-9]))
    assert error.kind == Kind.INVALID_ARGUMENT
    assert "replica_id" in error.message


def test_a_replica_of_another_deployment_is_refused() -> None:
    assert "deployment_id = 'other'" in refusal(request(deployment_id="other")).message


@pytest.mark.parametrize(
    "model",
    [
        "",
        "..",
        ".",
        ".hidden",
        "a/b",
        "/etc",
        "../models",
        "a\\b/..",
        "a b",
        "m" * 129,
        "a\0",
        "a\n",
    ],
)
def test_a_path_is_no_model(model: str) -> None:
    assert "model = " in refusal(request(model=model)).message


@pytest.mark.parametrize(
    "image", ["", "triton:1", "sha256:" + "AB" * 32, "sha256:ab", IMAGE + "/..", IMAGE + "\n"]
)
def test_an_image_is_named_by_its_id_alone(image: str) -> None:
    assert "image_id = " in refusal(request(image_id=image)).message


@pytest.mark.parametrize("environment", ["..", "0f" * 15, "0F" * 16, "/etc", "0f" * 16 + "/.."])
def test_a_path_is_no_environment(environment: str) -> None:
    assert "environment_id = " in refusal(request(environment_id=environment)).message


@pytest.mark.parametrize("key", ["", "k" * 31, "k" * 129, "k" * 32 + ",health:a=b", "k" * 31 + "="])
def test_a_bad_key_is_refused_and_not_repeated(key: str) -> None:
    message = refusal(request(access_key=key)).message
    assert "access_key" in message
    assert not key or key not in message


@pytest.mark.parametrize(
    ("uuids", "gpus", "said"),
    [
        (["0"], 1.0, "no UUID"),
        (["all"], 1.0, "no UUID"),
        (["GPU-0a1b2c3d"], 1.0, "no UUID"),
        ([GPU + ",all"], 1.0, "no UUID"),
        ([GPU, GPU], 2.0, "twice"),
        ([MIG, GPU], 2.0, "one MIG instance"),
        ([MIG, MIG.replace("5555", "5556")], 2.0, "one MIG instance"),
        ([GPU], 0.0, "gpus = 0"),
        ([GPU, OTHER_GPU], 0.5, "a share of one GPU"),
        ([GPU.replace("0000", f"{n:04x}") for n in range(17)], 17.0, "at most 16"),
    ],
)
def test_gpus_are_named_once_and_by_their_uuids(uuids: list[str], gpus: float, said: str) -> None:
    assert said in refusal(request(gpu_uuids=uuids, gpus=gpus)).message


@pytest.mark.parametrize("uuid", [MIG, f"MIG-{GPU}/7/0"])
def test_one_mig_instance_passes_in_either_spelling(uuid: str) -> None:
    assert check(request(gpu_uuids=[uuid], gpus=1.0)).gpu_uuids == (uuid,)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_VISIBLE_DEVICES",
        "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "PYTHONHOME",
        "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "DOCKER_HOST",
        "FOREBAY_VOLUME_DATA", "", "A=B", "1A", "A B", "A\0", "A" * 129,
    ],
)  # fmt: skip
def test_variables_of_others_are_refused(name: str) -> None:
    assert "variables" in refusal(request(variables={name: "x"})).message


def test_values_are_text_of_a_bounded_size() -> None:
    assert "value of A" in refusal(request(variables={"A": "x\0"})).message
    assert "value of A" in refusal(request(variables={"A": "x" * 4097})).message
    assert "at most 80" in refusal(request(variables={f"A{n}": "" for n in range(81)})).message
    many = {f"A{n}": "x" * 4000 for n in range(60)}
    assert "bytes" in refusal(request(variables=many)).message


def test_the_agents_word_on_where_volumes_are_must_be_the_launchers() -> None:
    volume = StartReplicaRequest.ReplicaVolume(name="data")
    right = request(volumes=[volume], variables={"FOREBAY_VOLUME_DATA": "/forebay/volumes/data"})
    assert check(right).variables == {}
    wrong = request(volumes=[volume], variables={"FOREBAY_VOLUME_DATA": "/srv/data"})
    assert "FOREBAY_VOLUME_DATA is set by the launcher" in refusal(wrong).message


@pytest.mark.parametrize("name", ["other", "../data", "/etc", ""])
def test_volumes_come_from_the_launchers_own_settings(name: str) -> None:
    volume = StartReplicaRequest.ReplicaVolume(name=name, read_only=True)
    error = refusal(request(volumes=[volume]))
    assert error.kind == Kind.PERMISSION_DENIED
    assert "does not offer" in error.message


def test_what_is_offered_for_reading_is_not_written() -> None:
    error = refusal(request(volumes=[StartReplicaRequest.ReplicaVolume(name="weights")]))
    assert error.kind == Kind.PERMISSION_DENIED
    assert "for reading only" in error.message


def test_a_volume_is_named_once() -> None:
    volume = StartReplicaRequest.ReplicaVolume(name="data", read_only=True)
    assert "twice" in refusal(request(volumes=[volume, volume])).message
    assert "at most 16" in refusal(request(volumes=[volume] * 17)).message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpus", -1.0), ("cpus", float("nan")), ("cpus", float("inf")), ("cpus", 4097.0),
        ("gpus", -0.5), ("gpus", float("nan")), ("gpus", 17.0),
        ("memory_bytes", -1), ("memory_bytes", 1), ("memory_bytes", 1 << 41),
        ("gpu_memory_bytes", -1), ("gpu_memory_bytes", 1 << 60), ("generation", -1),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    assert f"{field} = " in refusal(request(**{field: value})).message


def test_nothing_else_can_be_said() -> None:
    """No field of the request is one that could widen what the template gives."""
    fields = {field.name for field in StartReplicaRequest.DESCRIPTOR.fields}
    assert fields == {
        "replica_id", "deployment_id", "image_id", "model", "environment_id", "gpu_uuids", "gpus",
        "gpu_memory_bytes", "cpus", "memory_bytes", "variables", "volumes", "access_key",
        "generation",
    }  # fmt: skip


def test_another_request_for_the_same_replica_is_told_from_a_repeated_one() -> None:
    variables = {"A": "1", "B": "2"}
    turned = {"B": "2", "A": "1"}
    assert check(request(variables=variables)).digest == check(request(variables=turned)).digest
    assert check(request(generation=1)).digest != check(request(generation=2)).digest


def test_grace_is_at_most_five_minutes() -> None:
    wanted = StopReplicaRequest(replica_id="iris-0a1b2c3d")
    assert request_check.grace_s(wanted) == 0
    wanted.grace_period.FromMilliseconds(2500)
    assert request_check.grace_s(wanted) == 2.5
    wanted.grace_period.seconds = 301
    with pytest.raises(RefusedError, match=re.escape("grace_period = 301")):
        request_check.grace_s(wanted)


def test_requirements_are_text_of_a_bounded_size() -> None:
    assert request_check.check_requirements(b"six\n") == b"six\n"
    for content in (b"x" * 65537, b"\xff\xfe"):
        with pytest.raises(RefusedError, match="requirements"):
            request_check.check_requirements(content)
