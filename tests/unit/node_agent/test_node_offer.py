"""What a node says it has: simulated GPUs, CPUs, memory, and what its settings may say."""

import os
from pathlib import Path

import psutil
import pytest

from forebay.v1.node_pb2 import REPLICA_RUNTIME_DOCKER, REPLICA_RUNTIME_PROCESS
from services.node_agent import node_resources, simulated_gpus
from services.node_agent.inventory import GpuInventory
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.simulated_gpus import Holding, Simulation, offer
from services.runtime.config import ConfigError

GIB = 1 << 30
TWO = Simulation("node-1", 2, 24 * GIB, "L4")


def test_simulated_gpus_are_told_from_real_ones_in_every_way() -> None:
    first, second = offer(TWO, ())
    assert (first.uuid, second.uuid) == ("SIM-node-1-0", "SIM-node-1-1")
    assert first.simulated
    assert first.product_name == "Simulated L4"
    assert first.memory_total_bytes == 24 * GIB
    assert simulated_gpus.is_simulated(first.uuid)
    assert not simulated_gpus.is_simulated("GPU-5a6b")


def test_a_product_that_says_so_already_is_left_alone() -> None:
    (gpu,) = offer(Simulation("n", 1, GIB, "simulated H100"), ())
    assert gpu.product_name == "simulated H100"


def test_load_of_a_simulated_gpu_is_what_its_replicas_declare_and_do() -> None:
    uuids = ("SIM-node-1-0", "SIM-node-1-1")
    first, second = offer(
        TWO,
        [
            Holding(uuids[:1], 0.5, 4 * GIB, ongoing_count=3),
            Holding(uuids[:1], 0.25, 2 * GIB, ongoing_count=0),
            Holding(uuids[1:], 1.0, 40 * GIB, ongoing_count=1),
            Holding((), 0.0, 0, ongoing_count=9),
        ],
    )
    assert (first.memory_used_bytes, first.utilization_ratio) == (6 * GIB, 0.5)
    assert (second.memory_used_bytes, second.utilization_ratio) == (24 * GIB, 1.0)


def test_a_replica_on_two_gpus_holds_half_of_its_memory_on_each() -> None:
    uuids = ("SIM-node-1-0", "SIM-node-1-1")
    both = offer(TWO, [Holding(uuids, 2.0, 8 * GIB, ongoing_count=1)])
    assert [gpu.memory_used_bytes for gpu in both] == [4 * GIB, 4 * GIB]
    assert [gpu.utilization_ratio for gpu in both] == [1.0, 1.0]


async def test_simulated_gpus_take_the_place_of_nvml_and_say_so() -> None:
    gpus = GpuInventory(TWO)
    await gpus.open()
    found = gpus.read()
    assert len(found.gpus) == 2
    assert found.message == "2 GPUs are simulated: replicas run on the CPU"


def _cgroup(tmp_path: Path, path: str, **files: str) -> tuple[Path, Path]:
    root, own = tmp_path / "cgroup", tmp_path / "self"
    own.write_text(f"1:name=systemd:/x\n0::{path}\n")
    (root / path.lstrip("/")).mkdir(parents=True)
    for name, text in files.items():
        (root / path.lstrip("/") / name.replace("_", ".")).write_text(text)
    return root, own


def test_without_limits_a_node_offers_all_it_may_run_on(tmp_path: Path) -> None:
    limits = _cgroup(tmp_path, "/a/b", cpu_max="max 100000\n", memory_max="max\n")
    assert node_resources.cpus(*limits) == len(os.sched_getaffinity(0))
    assert node_resources.memory_bytes(*limits) == psutil.virtual_memory().total


def test_a_limit_of_any_control_group_above_counts(tmp_path: Path) -> None:
    root, own = _cgroup(tmp_path, "/a/b", cpu_max="max 100000\n")
    (root / "a" / "cpu.max").write_text("50000 100000\n")
    (root / "a" / "memory.max").write_text("1048576\n")
    assert node_resources.cpus(root, own) == 0.5
    assert node_resources.memory_bytes(root, own) == 1 << 20


def test_a_machine_without_control_groups_offers_all(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert node_resources.cpus(nowhere, nowhere) == len(os.sched_getaffinity(0))


def test_containers_may_use_the_machine_however_little_their_agent_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_resources, "cpus", lambda: 0.5)
    monkeypatch.setattr(node_resources, "memory_bytes", lambda: 1 << 20)
    assert node_resources.offered(REPLICA_RUNTIME_PROCESS) == (0.5, 1 << 20)
    machine = (os.cpu_count(), psutil.virtual_memory().total)
    assert node_resources.offered(REPLICA_RUNTIME_DOCKER) == machine


def test_resources_of_a_node_are_given_as_json() -> None:
    settings = NodeAgentSettings.load(["--resources", '{"tpu": 2, "nvme_tb": 0.5}'])
    assert settings.resources == {"tpu": 2.0, "nvme_tb": 0.5}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"TPU": 1}', "'TPU' is not the name of a resource: write a lower-case letter"),
        ('{"tpu": 0}', "tpu = 0: an amount is more than 0"),
        ('{"tpu": -1}', "tpu = -1: an amount is more than 0"),
        ('{"tpu": "inf"}', "tpu = inf: an amount is more than 0"),
        (
            "{" + ", ".join(f'"r{number}": 1' for number in range(65)) + "}",
            "65 resources; a node has at most 64",
        ),
    ],
)
def test_resources_that_no_deployment_could_name_are_refused(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match="resources") as caught:
        NodeAgentSettings.load(["--resources", value])
    assert said in str(caught.value)


def test_several_autoscalers_are_separated_by_commas() -> None:
    settings = NodeAgentSettings.load(["--autoscaler", "a:1,b:2"])
    assert settings.autoscalers == ("a:1", "b:2")
    with pytest.raises(ConfigError, match="'b' is not an address"):
        NodeAgentSettings.load(["--autoscaler", "a:1,b"])
