"""GPUs that fail under load, in a whole mesh: two nodes with stand-in GPUs and real Tritons."""

import asyncio
import functools
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio
import numpy as np
import pytest

import forebay
from forebay.v1.metrics_pb2 import GetSnapshotRequest, Snapshot
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from forebay.v1.node_pb2 import Gpu, ReplicaStatus
from tests.support import nvml_standin
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.gpu_nodes import GpuNode
from tests.support.nvml_standin import GIB, Script, StandInGpu

READY = ReplicaStatus.STATE_READY
CORDON_S = 5.0
"""Promised on a machine with room for what runs on it. Here six callers and three Tritons may share
two cores: three times that is much less than anything else would take."""
START_S = 90.0
CALLERS = 6


@dataclass
class Mesh:
    """The mesh, its two nodes with GPUs, and what metrics knows of them."""

    up: ForebayUp
    a: GpuNode
    b: GpuNode
    stub: MetricsServiceStub

    async def snapshot(self) -> Snapshot:
        answer = await self.stub.GetSnapshot(GetSnapshotRequest(), timeout=30)
        return answer.snapshot

    async def gpu(self, uuid: str) -> Gpu:
        found = [g for n in (await self.snapshot()).nodes for g in n.gpus if g.uuid == uuid]
        return found[0]

    async def replicas(self) -> dict[str, ReplicaStatus]:
        """By the GPU that each runs on; those that are leaving are left out."""
        return {
            replica.gpu_uuids[0]: replica
            for node in (await self.snapshot()).nodes
            for replica in node.replicas
            if replica.state != ReplicaStatus.STATE_DRAINING and replica.gpu_uuids
        }

    async def until_ready(self, *uuids: str) -> dict[str, ReplicaStatus]:
        async def so() -> dict[str, ReplicaStatus]:
            found = await self.replicas()
            assert {u for u, r in found.items() if r.state == READY} >= set(uuids), found
            return found

        return await eventually(so, START_S)

    async def until_health(self, uuid: str, health: Gpu.Health) -> None:
        async def so() -> bool:
            return (await self.gpu(uuid)).health == health

        await eventually(so, START_S)


def gpu(node: int, number: int) -> str:
    return nvml_standin.uuid(16 * node + number)


GPUS = {gpu(n, i) for n in range(2) for i in range(2)}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForebayUp, GpuNode, GpuNode]]:
    directory = tmp_path_factory.mktemp("gpus")
    scripts = []
    for number, name in enumerate("ab"):
        (directory / name).mkdir()
        if not number:
            nvml_standin.build(directory / name)
        else:
            shutil.copy(directory / "a" / "libnvidia-ml.so.1", directory / name)
        scripts.append(Script(directory / name))
        scripts[-1].offer(*(StandInGpu(gpu(number, n)) for n in range(2)))
    with (
        ForebayUp(directory / "state", "--nodes", "1", "--slots", "1") as up,
        GpuNode(up, "gpu-a", scripts[0]) as a,
        GpuNode(up, "gpu-b", scripts[1]) as b,
    ):
        yield up, a, b


@pytest.fixture
async def mesh(nodes: tuple[ForebayUp, GpuNode, GpuNode]) -> AsyncIterator[Mesh]:
    up, a, b = nodes
    async with grpc.aio.insecure_channel(up.mesh["metrics"]) as channel:
        made = Mesh(up, a, b, MetricsServiceStub(channel))
        for number in range(2):
            await eventually(functools.partial(made.gpu, gpu(number, 0)), START_S)
        yield made


def deploy(mesh: Mesh, replicas: int) -> None:
    directory = mesh.up.state_dir.with_name("chaos")
    file = write_chaos(
        directory,
        replicas=replicas,
        max_ongoing_requests=2,
        resources={"gpus": 1, "gpu_memory_bytes": 4 * GIB},
    )
    mesh.up.forebay("deploy", file, "--no-wait").ok()


@dataclass
class Load:
    """What callers saw."""

    answered: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@asynccontextmanager
async def load(mesh: Mesh) -> AsyncIterator[Load]:
    """Callers, one call after the other each, until the block ends; then all have their answers."""
    seen, ending = Load(), asyncio.Event()

    async def call(client: forebay.AsyncClient, number: int) -> None:
        count = 0
        while not ending.is_set():
            count += 1
            word = f"wait:0.{number + 1:02}{count}"
            try:
                result = await client.infer(
                    "chaos", {"DO": np.array([word], dtype=object)}, timeout_s=60
                )
                assert result["SAID"][0] == word.encode()
                seen.answered.append(time.monotonic())
            except forebay.ForebayError as error:
                seen.failed.append(str(error))

    async with forebay.AsyncClient(mesh.up.mesh["router"]) as client, asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(call(client, number))
        try:
            yield seen
        finally:
            ending.set()


async def test_a_fatal_xid_under_load_costs_one_gpu_and_no_answer(mesh: Mesh) -> None:
    deploy(mesh, replicas=3)
    await eventually(lambda: ready_count(mesh, 3), START_S)
    before = await mesh.replicas()
    (spare,) = GPUS - set(before)
    # Wherever the three were placed, the first node has one.
    failing = min(set(before) & {gpu(0, 0), gpu(0, 1)})
    async with load(mesh) as seen:
        await eventually(lambda: len(seen.answered) > 100, 60)
        happened_s = time.monotonic()
        mesh.a.script.xid(failing, 79)
        await mesh.until_health(failing, Gpu.HEALTH_FAULTY)
        told_s = time.monotonic() - happened_s
        await eventually(lambda: moved(mesh, failing, spare))
        moved_s = time.monotonic() - happened_s
        after = await mesh.until_ready(spare)
        whole_s = time.monotonic() - happened_s
        count = len(seen.answered)
        await eventually(lambda: len(seen.answered) > count + 100, 60)
    print(
        f"a fatal Xid under load: reported after {told_s:.2f} s, its replica assigned elsewhere "
        f"after {moved_s:.2f} s and ready after {whole_s:.1f} s; {len(seen.answered)} answers"
    )
    assert moved_s < 3 * CORDON_S
    assert seen.failed == []
    gaps = np.diff(np.array(seen.answered))
    assert gaps.max() < 3 * CORDON_S, "the other replicas keep serving"
    for uuid in set(before) - {failing}:
        assert (after[uuid].replica_id, after[uuid].start_count) == (
            before[uuid].replica_id,
            before[uuid].start_count,
        )
    found = await mesh.gpu(failing)
    assert found.xid_counts == {79: 1}
    assert "Xid 79" in found.health_message


async def test_a_gpu_that_is_back_is_used_again(mesh: Mesh) -> None:
    found = [g for n in (await mesh.snapshot()).nodes for g in n.gpus]
    (failing,) = [g.uuid for g in found if g.health == Gpu.HEALTH_FAULTY]
    deploy(mesh, replicas=4)
    await mesh.until_ready(*GPUS - {failing})
    assert failing not in await mesh.replicas()
    mesh.a.script.change(failing, lost=1)
    await mesh.until_health(failing, Gpu.HEALTH_LOST)
    mesh.a.script.change(failing, lost=0)
    await mesh.until_health(failing, Gpu.HEALTH_OK)
    assert len(await mesh.until_ready(failing)) == 4


async def test_memory_of_its_processes_is_the_replicas(mesh: Mesh) -> None:
    deploy(mesh, replicas=4)
    uuid = gpu(1, 1)
    replica = (await mesh.until_ready(uuid))[uuid]
    triton = mesh.b.triton_pid(replica.replica_id)
    mesh.b.script.processes(uuid, {triton: 3 * GIB, 1: GIB})

    async def counted() -> bool:
        return (await mesh.replicas())[uuid].gpu_memory_used_bytes == 3 * GIB

    await eventually(counted, 60.0)
    told = [(p.process_id, p.replica_id) for p in (await mesh.gpu(uuid)).processes]
    assert told == [(triton, replica.replica_id), (1, "")]


async def test_a_node_whose_nvml_hangs_starts_nothing_and_serves_on(mesh: Mesh) -> None:
    deploy(mesh, replicas=4)
    before = await mesh.until_ready(*GPUS)

    async def cannot_start() -> bool:
        nodes = {node.name: node for node in (await mesh.snapshot()).nodes}
        return "NVML does not answer" in nodes["nodes/gpu-a"].runtime_message

    mesh.a.script.hang("nvmlDeviceGetMemoryInfo", 4_000)
    async with load(mesh) as seen:
        await eventually(cannot_start, 60.0)
        count = len(seen.answered)
        await eventually(lambda: len(seen.answered) > count + 50, 60)
    mesh.a.script.hang("nvmlDeviceGetMemoryInfo", 0)
    assert seen.failed == []
    after = await mesh.replicas()
    assert {u: r.replica_id for u, r in after.items()} == {
        u: r.replica_id for u, r in before.items()
    }

    async def can_start() -> bool:
        return not await cannot_start()

    await eventually(can_start, 60.0)


async def test_where_no_other_gpu_is_free_people_are_told_which_failed_and_why(mesh: Mesh) -> None:
    deploy(mesh, replicas=4)
    await mesh.until_ready(*GPUS)
    mesh.b.script.xid(gpu(1, 0), 119)

    def told() -> bool:
        said = mesh.up.forebay("status", "chaos", "--output", "json").out
        return "Xid 119 (GSP did not answer): reset the GPU" in said

    async def left() -> bool:
        return gpu(1, 0) not in await mesh.replicas()

    # The autoscaler tells why before the node's next report tells that its replica leaves.
    await eventually(told, 60.0)
    await eventually(left, 60.0)


async def ready_count(mesh: Mesh, count: int) -> bool:
    return [r.state for r in (await mesh.replicas()).values()] == [READY] * count


async def moved(mesh: Mesh, failing: str, spare: str) -> bool:
    found = await mesh.replicas()
    return spare in found and failing not in found
