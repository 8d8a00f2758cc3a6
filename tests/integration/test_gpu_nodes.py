"""Nodes with GPUs, on real metrics and a real autoscaler: health, memory, and who uses what."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.node_pb2 import Gpu, NodeReport, ReplicaStatus
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, control_plane
from tests.support.eventually import eventually

XID = "Xid 79: the GPU has fallen off the bus"
GIB = 1 << 30
WITHIN_S = 5.0

Amend = Callable[[NodeReport], None]


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


def health(uuid: str, state: Gpu.Health, message: str = "") -> Amend:
    def amend(report: NodeReport) -> None:
        for gpu in report.gpus:
            if gpu.uuid == uuid:
                gpu.health, gpu.health_message = state, message

    return amend


def on(agent: Agent) -> list[list[str]]:
    return sorted(list(a.gpu_uuids) for a in agent.assignments)


async def warnings(mesh: ControlPlane) -> list[str]:
    return list((await mesh.get("add")).status.warnings)


@pytest.mark.parametrize("state", [Gpu.HEALTH_FAULTY, Gpu.HEALTH_LOST])
async def test_replicas_leave_a_gpu_that_failed_within_5_s_and_come_back_when_it_works(
    mesh: ControlPlane, state: Gpu.Health
) -> None:
    a = await mesh.agent(Agent("a", gpus=("a-0", "a-1")))
    b = await mesh.agent(Agent("b", gpus=("b-0",)))
    created_s = time.monotonic()
    await mesh.create("add", replicas=2, resources={"gpus": 1})
    await mesh.ready("add", 2)
    placed_s = time.monotonic() - created_s
    assert on(a) == [["a-0"], ["a-1"]]
    stays = next(x.replica_id for x in a.assignments if x.gpu_uuids == ["a-1"])
    a.slow_to_stop = True
    a.amend = health("a-0", state, XID)
    failed_s = time.monotonic()
    await eventually(lambda: (on(a), on(b)) == ([["a-1"]], [["b-0"]]))
    # Where this machine is slow, it was so too when the replicas were placed.
    assert time.monotonic() - failed_s < max(WITHIN_S, 5 * placed_s)
    assert [x.replica_id for x in a.assignments] == [stays]
    left = f"is on a GPU that it must leave: GPU a-0 of node a is cordoned: {XID}"
    (warning,) = await eventually(lambda: warnings(mesh))
    assert left in warning
    a.slow_to_stop = False
    await mesh.ready("add", 2)
    await mesh.update("add", "replicas", replicas=3)

    async def said() -> bool:
        return f"GPU a-0 is cordoned: {XID}" in (await mesh.get("add")).status.message

    await eventually(said)
    a.amend = health("a-0", Gpu.HEALTH_OK)
    await mesh.ready("add", 3)
    assert on(a) == [["a-0"], ["a-1"]]
    assert await warnings(mesh) == []


async def test_a_replica_that_uses_more_memory_than_it_declares_is_told_and_counts_with_it(
    mesh: ControlPlane,
) -> None:
    a = await mesh.agent(Agent("a", gpus=("a-0",)))

    def uses(gib: float) -> Amend:
        def amend(report: NodeReport) -> None:
            for replica in report.replicas:
                replica.gpu_memory_used_bytes = int(gib * GIB)
                report.gpus[0].memory_used_bytes += int(gib * GIB)

        return amend

    a.amend = uses(7)
    resources = {"gpus": 0.25, "gpu_memory_bytes": 6 * GIB}
    made = await mesh.create("add", replicas=1, resources=resources)
    await mesh.ready("add", 1)
    name = a.assignments[0].replica_id
    assert await eventually(lambda: warnings(mesh)) == [
        f"replica {name} uses 7 GiB of GPU memory and declares 6 GiB: "
        "raise resources.gpu_memory_bytes"
    ]
    assert (await mesh.get("add")).status.max_gpu_memory_used_bytes == 7 * GIB
    # 16 - 7 are free, of which another one of 10 cannot be promised anything.
    await mesh.create(
        "big",
        model_digest=made.model_digest,
        replicas=1,
        resources={
            "gpus": 0.25,
            "gpu_memory_bytes": 10 * GIB,
        },
    )

    async def refused() -> bool:
        return "at most 9.0 GiB of memory free" in (await mesh.get("big")).status.message

    await eventually(refused)


async def test_a_node_that_cannot_start_replicas_keeps_what_it_has_and_gets_nothing_new(
    mesh: ControlPlane,
) -> None:
    a = await mesh.agent(Agent("a", slots=2))
    await mesh.create("add", replicas=3)
    await eventually(lambda: len(a.assignments) == 2)

    def away(report: NodeReport) -> None:
        report.runtime_message = "the launcher does not answer"

    async def said() -> bool:
        status = (await mesh.get("add")).status
        wanted = "a: it cannot start replicas now: the launcher does not answer"
        return wanted in status.message

    a.amend = away
    await eventually(said)
    assert (await mesh.get("add")).status.ready_replica_count == 2
    await mesh.update("add", "replicas", replicas=1)
    await mesh.ready("add", 1)
    # A slot is free now, and nobody may have it.
    await mesh.update("add", "replicas", replicas=2)
    await eventually(said)
    await eventually(lambda: len(a.assignments) == 1)
    b = await mesh.agent(Agent("b"))
    await mesh.ready("add", 2)
    assert (len(a.assignments), len(b.assignments)) == (1, 1)


async def test_two_agents_on_one_machine_do_not_use_a_gpu_twice(mesh: ControlPlane) -> None:
    b = await mesh.agent(Agent("b", gpus=("g",)))
    await mesh.create("add", replicas=2, resources={"gpus": 1})
    await eventually(lambda: on(b) == [["g"]])
    a = await mesh.agent(Agent("a", gpus=("g",)))

    async def said() -> bool:
        wanted = "a: GPU g is cordoned: nodes a and b report the same GPU, it is used through b"
        return wanted in (await mesh.get("add")).status.message

    await eventually(said)
    assert (on(a), on(b)) == ([], [["g"]])


async def test_an_assignment_names_an_image_and_the_decision_it_came_from(
    mesh: ControlPlane,
) -> None:
    a = await mesh.agent(Agent("a", state_of=lambda _: ReplicaStatus.STATE_READY))
    made: Deployment = await mesh.create("add", replicas=2, image="triton:24.10")
    assert made.generation == 1
    await mesh.ready("add", 2)
    names = {x.scale_decision for x in a.assignments}
    (name,) = names
    assert name.startswith("deployments/add/decisions/")
    assert {x.image for x in a.assignments} == {"triton:24.10"}
    await mesh.update("add", "replicas", replicas=3)
    await mesh.ready("add", 3)
    later = {x.scale_decision for x in a.assignments} - names
    assert len(later) == 1
    assert (await mesh.update("add", "image", image="triton:24.11")).generation == 2
    await mesh.ready("add", 3)
    # The status may tell of the last step before the node hears of it.
    await eventually(lambda: {x.image for x in a.assignments} == {"triton:24.11"})
    assert {x.scale_decision for x in a.assignments} == later
