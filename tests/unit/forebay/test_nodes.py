"""What `forebay nodes` says of GPUs."""

import asyncio
import json

import pytest
from rich.console import Console

from forebay.cli import nodes as command
from forebay.cli import output
from forebay.cli.link import Where
from forebay.cli.output import Output
from forebay.v1.node_pb2 import REPLICA_RUNTIME_DOCKER, Gpu, Node, ReplicaStatus

UUID = "GPU-5f9cabcd-1234-5678-9abc-def012345678"
GIB = 1 << 30


def gpu(**fields: object) -> Gpu:
    made = {
        "uuid": UUID,
        "product_name": "NVIDIA L4",
        "memory_total_bytes": 24 * GIB,
        "memory_used_bytes": 91 * GIB // 10,
        "utilization_ratio": 0.63,
        "health": Gpu.HEALTH_OK,
        "temperature_celsius": 61.4,
        "power_watts": 70.6,
        "power_limit_watts": 72,
    }
    return Gpu(**{**made, **fields})


def node(name: str, *gpus: Gpu, **fields: object) -> Node:
    return Node(name=f"nodes/{name}", gpus=gpus, state=Node.STATE_ACTIVE, **fields)


def health(*nodes: Node) -> list[str]:
    return [row[-1] for row in command.gpu_rows(nodes)]


def test_a_gpu_is_shown_with_its_load_and_health() -> None:
    assert command.gpu_rows([node("a", gpu())]) == [
        ("GPU-5f9cabcd", "a", "NVIDIA L4", "9.1 of 24 GiB", "63%", "61", "71 of 72 W", "ok")
    ]


def test_what_is_not_known_is_left_out() -> None:
    bare = Gpu(uuid=UUID, product_name="NVIDIA L4", memory_total_bytes=24 * GIB)
    assert command.gpu_rows([node("a", bare)])[0][3:] == ("0 of 24 GiB", "0%", "", "", "ok")


def test_a_mig_instance_names_its_gpu() -> None:
    slice_of = gpu(uuid="MIG-77", product_name="NVIDIA A100 MIG 1g.5gb", mig_parent_uuid=UUID)
    row = command.gpu_rows([node("a", slice_of)])[0]
    assert row[:3] == ("MIG-77", "a", "NVIDIA A100 MIG 1g.5gb (of GPU-5f9cabcd)")
    assert row[4] == "", "NVML does not tell how busy it is"


def test_a_cordoned_gpu_says_why() -> None:
    lost = Gpu(uuid=UUID, memory_total_bytes=24 * GIB, health=Gpu.HEALTH_LOST)
    assert set(command.gpu_rows([node("a", lost)])[0][3:-1]) == {""}
    faulty = gpu(uuid="GPU-2", health=Gpu.HEALTH_FAULTY, health_message="Xid 79: fell off the bus")
    assert health(node("a", lost, faulty)) == ["lost", "faulty"]
    assert command.notes_of([node("a", lost, faulty)]) == [("a", "GPU-2: Xid 79: fell off the bus")]


def test_a_gpu_of_two_agents_says_through_which_it_is_used() -> None:
    holder = node("b", gpu(), replicas=[ReplicaStatus(gpu_uuids=[UUID])])
    assert health(node("a", gpu()), holder) == ["ok", "ok"]
    said = "GPU-5f9cabcd: nodes a and b report it: used through b"
    assert command.notes_of([node("a", gpu()), holder]) == [("a", said), ("b", said)]


def test_the_tables_fit_a_terminal_and_json_has_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = node(
        "gpu-node-1",
        gpu(xid_counts={79: 2}, processes=[{"process_id": 7, "replica_id": "add-1"}]),
        runtime=REPLICA_RUNTIME_DOCKER,
        runtime_message="the launcher is away",
        gpu_message="1 GPU is lost",
        slot_count=2,
        cpus=8,
        memory_bytes=64 * GIB,
    )

    async def listed(_: Where) -> list[Node]:
        return [shown]

    monkeypatch.setattr(command, "list_nodes", listed)
    asyncio.run(command.nodes(Where(), Output.TABLE))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(lines[1].split()) == "gpu-node-1 active docker 0/2 0/1 8 64 GiB 0 never"
    assert [" ".join(line.split()) for line in lines[-2:]] == [
        "gpu-node-1 the launcher is away",
        "gpu-node-1 1 GPU is lost",
    ]
    assert max(map(len, lines)) <= 100
    asyncio.run(command.nodes(Where(), Output.JSON))
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["runtime"], told["runtime_message"]) == ("docker", "the launcher is away")
    (told_gpu,) = told["gpus"]
    assert told_gpu["health"] == "ok"
    assert told_gpu["xid_counts"] == {"79": 2}
    assert told_gpu["processes"][0]["replica_id"] == "add-1"
    assert told_gpu["ecc_corrected_count"] is None
    assert (told_gpu["temperature_celsius"], told_gpu["power_limit_watts"]) == (61.4, 72)


def test_on_a_terminal_of_80_columns_no_word_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [
        node(name, gpu(product_name="NVIDIA A100-SXM4-40GB"), slot_count=2, cpus=8.0)
        for name in ("node-1", "node-2")
    ]

    async def listed(_: Where) -> list[Node]:
        return shown

    monkeypatch.setattr(command, "list_nodes", listed)
    monkeypatch.setattr(output, "out", lambda: Console(width=80))
    asyncio.run(command.nodes(Where(), Output.TABLE))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    words = set(printed.split())
    assert {"node-1", "active", "REPLICAS", "GPU-5f9cabcd", "CELSIUS", "HEALTH", "NVIDIA"} <= words
