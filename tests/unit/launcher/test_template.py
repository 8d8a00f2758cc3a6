"""The one form of a replica's container: read it as a whole once, then claim by claim."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.launcher.environment_template import environment_container, environment_id
from services.launcher.gpu_devices import uses_cdi
from services.launcher.request_check import CheckedReplica, CheckedVolume
from services.launcher.settings import LauncherSettings
from services.launcher.template import Folders, Surroundings, container_name, replica_container

GOLDEN = Path(__file__).with_name("golden_container.json")
IMAGE = "sha256:" + "ab" * 32
GPU = "GPU-0a1b2c3d-0000-1111-2222-333344445555"
OTHER_GPU = "GPU-0a1b2c3d-0000-1111-2222-333344445556"
MIG = "MIG-0a1b2c3d-0000-1111-2222-333344445555"
FOLDERS = Folders("/state/replicas/iris-0a1b2c3d/repository", "/state/models/iris-0123", None)

REPLICA = CheckedReplica(
    replica_id="iris-0a1b2c3d",
    deployment_id="iris",
    image_id=IMAGE,
    model="iris-0123",
    environment_id="",
    gpu_uuids=(),
    gpus=0.0,
    gpu_memory_bytes=0,
    cpus=1.5,
    memory_bytes=2 * 1024**3,
    variables={"MODE": "fast"},
    volumes=(
        CheckedVolume("data", "/srv/data", read_only=False),
        CheckedVolume("weights", "/srv/weights", read_only=True),
    ),
    access_key="k" * 32,
    generation=7,
    digest="d" * 64,
)


def settings(**given: Any) -> LauncherSettings:
    return LauncherSettings(
        **{"node": "gpu-1", "state_dir": "/state", "engine": "unix:///var/run/docker.sock", **given}
    )


def made(
    replica: CheckedReplica = REPLICA, around: Surroundings | None = None, **given: Any
) -> dict[str, Any]:
    return replica_container(replica, settings(**given), FOLDERS, around or Surroundings())


def host(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = made(replace(REPLICA, **changes))["HostConfig"]
    return config


def environment(config: dict[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in config["Env"])


def test_the_whole_container_is_as_it_was_reviewed() -> None:
    """A change of the form is a change of this file, read as a difference."""
    assert made() == json.loads(GOLDEN.read_text())


def test_it_has_no_right() -> None:
    config = made()
    assert config["User"] == "1000:1000"
    held = config["HostConfig"]
    assert held["CapDrop"] == ["ALL"]
    assert "CapAdd" not in held
    assert held["SecurityOpt"] == ["no-new-privileges:true"]
    assert held["Privileged"] is False
    assert (held["IpcMode"], held["CgroupnsMode"]) == ("private", "private")
    assert (held["PidMode"], held["UTSMode"]) == ("", "")
    assert "UsernsMode" not in held
    assert "Devices" not in held


def test_it_can_change_no_file_but_in_memory_and_offered_volumes() -> None:
    held = host()
    assert held["ReadonlyRootfs"] is True
    writable = [mount["Target"] for mount in held["Mounts"] if not mount["ReadOnly"]]
    assert writable == ["/forebay/volumes/data"]
    assert list(held["Tmpfs"]) == ["/tmp"]
    assert "nosuid,nodev,size=1073741824,uid=1000,gid=1000" in held["Tmpfs"]["/tmp"]
    assert "Binds" not in held


def test_it_has_no_way_out_and_none_in() -> None:
    held = host()
    assert held["NetworkMode"] == "forebay-replicas"
    assert held["PortBindings"] == {}
    assert held["PublishAllPorts"] is False
    assert "ExposedPorts" not in made()
    assert held["Dns"] == ["127.0.0.1"]
    assert "ExtraHosts" not in held


def test_it_has_no_more_than_its_share() -> None:
    held = host()
    assert held["Memory"] == held["MemorySwap"] == 2 * 1024**3
    assert held["NanoCpus"] == 1_500_000_000
    assert held["PidsLimit"] == 4096
    assert held["ShmSize"] == 1024**3
    assert held["OomKillDisable"] is False
    assert held["LogConfig"]["Config"] == {"max-size": "10485760", "max-file": "3"}
    assert host(memory_bytes=0)["Memory"] == 8 * 1024**3
    assert host(cpus=0.0)["NanoCpus"] == 0


def test_nothing_starts_it_again_but_the_agent() -> None:
    held = host()
    assert held["RestartPolicy"] == {"Name": "no"}
    assert held["AutoRemove"] is False


def test_triton_answers_only_those_who_show_the_key() -> None:
    command = made()["Cmd"]
    assert command[0] == "tritonserver"
    restricted = next(word for word in command if word.startswith("--grpc-restricted-protocol="))
    protocols, _, key = restricted.partition("=")[2].partition(":")
    assert set(protocols.split(",")) == {
        "health", "metadata", "inference", "shared-memory", "model-config", "model-repository",
        "statistics", "trace", "logging",
    }  # fmt: skip
    assert key == "forebay=" + "k" * 32
    assert "--allow-http=false" in command
    assert "--allow-metrics=false" in command
    assert "--model-control-mode=explicit" in command
    assert not [word for word in command if word.startswith("--trace-config")]


def test_traces_go_where_the_operator_said() -> None:
    command = made(trace_url="http://node-agent:4318/v1/traces")["Cmd"]
    assert "--trace-config=opentelemetry,url=http://node-agent:4318/v1/traces" in command
    assert "--trace-config=rate=0" in command


def test_without_gpus_it_sees_none_whatever_the_image_says() -> None:
    config = made()
    assert environment(config)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert config["HostConfig"]["DeviceRequests"] == []


def test_gpus_are_given_by_their_uuids() -> None:
    config = made(replace(REPLICA, gpu_uuids=(GPU, OTHER_GPU), gpus=2.0))
    assert config["HostConfig"]["DeviceRequests"] == [
        {
            "Driver": "nvidia",
            "DeviceIDs": [GPU, OTHER_GPU],
            "Capabilities": [["gpu", "compute", "utility"]],
        }
    ]
    assert environment(config)["NVIDIA_VISIBLE_DEVICES"] == f"{GPU},{OTHER_GPU}"


@pytest.mark.parametrize("uuid", [GPU, MIG])
def test_cdi_names_the_same_devices(uuid: str) -> None:
    config = made(replace(REPLICA, gpu_uuids=(uuid,), gpus=1.0), Surroundings(cdi=True))
    assert config["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={uuid}"]}
    ]
    # What CDI gives, the older hook of an engine with NVIDIA's runtime must not give again.
    assert environment(config)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_a_share_of_a_gpu_is_limited_by_mps() -> None:
    replica = replace(REPLICA, gpu_uuids=(GPU,), gpus=0.25, gpu_memory_bytes=6 * 1024**3)
    config = made(replica, Surroundings(mps=True), mps_pipe_dir="/run/mps")
    limits = environment(config)
    assert limits["CUDA_MPS_PIPE_DIRECTORY"] == "/forebay/mps"
    assert limits["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
    assert limits["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=6144M"
    sources = {mount["Target"]: mount["Source"] for mount in config["HostConfig"]["Mounts"]}
    assert sources["/forebay/mps"] == "/run/mps"
    assert sources["/dev/shm"] == "/dev/shm"
    assert "ShmSize" not in config["HostConfig"]


@pytest.mark.parametrize(
    ("gpus", "uuids", "mps"), [(1.0, (GPU,), True), (0.5, (GPU,), False), (0.5, (), True)]
)
def test_whole_gpus_and_machines_without_mps_know_nothing_of_it(
    gpus: float, uuids: tuple[str, ...], mps: bool
) -> None:
    replica = replace(REPLICA, gpu_uuids=uuids, gpus=gpus)
    config = made(replica, Surroundings(mps=mps), mps_pipe_dir="/run/mps")
    assert not [name for name in environment(config) if name.startswith("CUDA_MPS")]
    assert "/dev/shm" not in [mount["Target"] for mount in config["HostConfig"]["Mounts"]]


def test_the_templates_variables_win() -> None:
    variables = {"NVIDIA_VISIBLE_DEVICES": "all", "FOREBAY_VOLUME_DATA": "/", "HOME": "/srv"}
    found = environment(made(replace(REPLICA, variables=variables)))
    assert found["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert found["FOREBAY_VOLUME_DATA"] == "/forebay/volumes/data"
    assert found["FOREBAY_VOLUME_WEIGHTS_READ_ONLY"] == "1"
    assert found["HOME"] == "/srv"


def test_packages_of_the_environment_come_before_others() -> None:
    replica = replace(REPLICA, environment_id="0f" * 16, variables={"PYTHONPATH": "/forebay/model"})
    assert environment(made(replica))["PYTHONPATH"] == "/forebay/environment:/forebay/model"
    assert "PYTHONPATH" not in environment(made())


def test_the_name_says_whose_it_is() -> None:
    assert container_name(settings(mesh="blue"), "iris-0a1b2c3d") == "blue-gpu-1-iris-0a1b2c3d"


def test_an_installation_is_confined_as_a_replica_is_but_for_its_network() -> None:
    built = environment_container(IMAGE, "0f" * 16, "/state/environments/x.tmp", settings())
    replica = made(replace(REPLICA, memory_bytes=0, volumes=(), cpus=0.0))
    differ = {
        key
        for key in built["HostConfig"].keys() | replica["HostConfig"].keys()
        if built["HostConfig"].get(key) != replica["HostConfig"].get(key)
    }
    # Devices and CPUs are what it has none of; name servers it needs.
    assert differ == {"NetworkMode", "Mounts", "Dns", "NanoCpus", "DeviceRequests"}
    assert built["User"] == "1000:1000"
    assert [mount["Target"] for mount in built["HostConfig"]["Mounts"]] == ["/forebay/build"]


def test_an_installation_sees_the_operators_index_and_no_gpu() -> None:
    given = {"environment_variables": {"PIP_INDEX_URL": "https://mirror/simple", "HOME": "/x"}}
    built = environment_container(IMAGE, "0f" * 16, "/build", settings(**given))
    found = environment(built)
    assert found["PIP_INDEX_URL"] == "https://mirror/simple"
    assert found["HOME"] == "/tmp"
    assert found["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_an_environment_is_named_by_its_content_and_its_image() -> None:
    other = "sha256:" + "cd" * 32
    names = {
        environment_id(IMAGE, b"six"),
        environment_id(IMAGE, b"six\n"),
        environment_id(other, b"six"),
    }
    assert len(names) == 3
    assert environment_id(IMAGE, b"six") in names


@pytest.mark.parametrize(
    ("info", "cdi"),
    [
        ({}, False),
        ({"CDISpecDirs": []}, False),
        ({"CDISpecDirs": ["/etc/cdi"]}, True),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": []}, False),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "vendor.com/nic=1"}]}, False),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": f"nvidia.com/gpu={GPU}"}]}, True),
    ],
)
def test_cdi_is_used_where_the_engine_knows_nvidias_devices(
    info: dict[str, Any], cdi: bool
) -> None:
    assert uses_cdi(info) is cdi
