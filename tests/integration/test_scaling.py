"""The examples that Beam's and ViewComfy's users know, live: real requests, real Tritons.

The same examples run simulated in tests/simulation; here they show that the mesh does what was
decided.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc.aio
import numpy as np
import pytest
from tritonclient import grpc as tritongrpc

import forebay
from forebay.v1.autoscaler_pb2 import ListScaleDecisionsRequest
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.metrics_pb2 import GetSnapshotRequest
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from forebay.v1.node_pb2 import ListNodesRequest, ReplicaStatus
from forebay.v1.node_pb2_grpc import NodeServiceStub
from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.scaling import record
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp, write_echo
from tests.support.replayed import check_decisions

AT_ONCE: dict[str, Any] = {"upscale_delay_s": 0}
CALL_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("scaling")
    with ForebayUp(directory / "state", "--slots", "5") as up:
        yield up


def deploy(mesh: ForebayUp, name: str, **scaling: Any) -> None:
    """Deploys an echo with one slot, at zero."""
    directory = mesh.state_dir.parent / name
    file = write_echo(directory, name=name, max_ongoing_requests=1, scaling=scaling)
    mesh.forebay("deploy", file).ok()


class Watched:
    """A deployment with load, and what became of it."""

    def __init__(self, mesh: ForebayUp, name: str) -> None:
        self.mesh, self.name = mesh, name
        self.finished_s: list[float] = []

    async def call(self, client: forebay.AsyncClient, wait_s: float) -> None:
        """One request that takes so long."""
        inputs = {
            "IN_FP32": np.ones(1, np.float32),
            "WAIT_S": np.array([wait_s], np.float32),
        }
        await client.infer(self.name, inputs, timeout_s=CALL_TIMEOUT_S)
        self.finished_s.append(asyncio.get_running_loop().time())

    async def burst(self, count: int, wait_s: float) -> None:
        """So many requests at the same time; ends with the last answer."""
        async with forebay.AsyncClient(self.mesh.mesh["router"]) as client:
            await asyncio.gather(*(self.call(client, wait_s) for _ in range(count)))

    async def decisions(self) -> list[ScaleDecision]:
        """All of them, oldest first; each comes out the same when it is made again."""
        async with grpc.aio.insecure_channel(self.mesh.mesh["autoscaler"]) as channel:
            request = ListScaleDecisionsRequest(parent=f"deployments/{self.name}", page_size=1000)
            page = await AutoscalerServiceStub(channel).ListScaleDecisions(request)
        found = list(reversed(page.scale_decisions))
        assert [decision.name for decision in found if not record.agrees(decision)] == []
        return found

    async def targets(self) -> list[int]:
        """Targets over time, without repetitions."""
        changes = [d.target_after for d in await self.decisions()]
        return [n for i, n in enumerate(changes) if i == 0 or n != changes[i - 1]]

    async def load(self) -> tuple[int, int]:
        """Queued and ongoing requests, as metrics sees them."""
        async with grpc.aio.insecure_channel(self.mesh.mesh["metrics"]) as channel:
            seen = await MetricsServiceStub(channel).GetSnapshot(GetSnapshotRequest())
        for load in seen.snapshot.deployments:
            if load.deployment == f"deployments/{self.name}":
                return load.queued_count, load.ongoing_count
        raise LookupError(self.name)

    async def running(self) -> int:
        """Replicas that the nodes report."""
        async with grpc.aio.insecure_channel(self.mesh.mesh["metrics"]) as channel:
            nodes = (await NodeServiceStub(channel).ListNodes(ListNodesRequest())).nodes
        return sum(
            replica.deployment == f"deployments/{self.name}"
            and replica.state != ReplicaStatus.STATE_STOPPED
            for node in nodes
            for replica in node.replicas
        )

    async def gone(self) -> None:
        """Waits until its last replica has gone."""

        async def is_gone() -> bool:
            return await self.running() == 0 and (await self.targets())[-1] == 0

        await eventually(is_gone, timeout_s=90)


async def test_ten_requests_at_once_start_four_replicas_and_all_go_when_idle(
    mesh: ForebayUp,
) -> None:
    """ViewComfy, example 1: queue size 1, at most 4, at least 0, idle time."""
    deploy(
        mesh,
        "ten",
        policy="queue_size",
        queue_size=1,
        min_replicas=0,
        max_replicas=4,
        downscale_delay_s=4,
        downscale_to_zero_delay_s=4,
    )
    ten = Watched(mesh, "ten")
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, await ten.running())
            await asyncio.sleep(0.1)

    counting = asyncio.create_task(count())
    await ten.burst(10, 1.0)
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    assert most == 4
    targets = await ten.targets()
    assert max(targets) == 4
    ups = [d for d in await ten.decisions() if d.target_after > d.target_before]
    # At once: whoever sees five that wait goes all the way. The looks before saw fewer, where the
    # requests took a while to come.
    assert all(d.target_after == 4 for d in ups if d.signals.queued_count >= 5)
    # Five that wait are enough for four replicas; of more the bound has the last word.
    assert ups[-1].rule in (ScaleDecision.RULE_MAX_REPLICAS, ScaleDecision.RULE_FROM_ZERO)
    await ten.gone()
    downs = [d for d in await ten.decisions() if d.target_after < d.target_before]
    assert all("wanted for 4 s" in decision.reason for decision in downs)


async def test_two_requests_need_one_replica_and_two_more_a_second_one(mesh: ForebayUp) -> None:
    """ViewComfy, example 2: queue size 2."""
    deploy(
        mesh,
        "two",
        policy="queue_size",
        queue_size=2,
        min_replicas=0,
        max_replicas=4,
        downscale_delay_s=3,
        downscale_to_zero_delay_s=3,
        **AT_ONCE,
    )
    two = Watched(mesh, "two")
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        first = [asyncio.create_task(two.call(client, 8.0)) for _ in range(2)]

        async def one_works_and_one_waits() -> bool:
            return await two.load() == (1, 1)

        await eventually(one_works_and_one_waits, timeout_s=60)
        assert (await two.targets())[-1] == 1
        assert await two.running() == 1
        second = [asyncio.create_task(two.call(client, 4.0)) for _ in range(2)]
        await asyncio.gather(*first, *second)
    assert max(await two.targets()) == 2
    await two.gone()


@pytest.mark.parametrize(("tasks", "replicas"), [(31, 2), (61, 3), (100, 3)])
async def test_a_replica_for_every_thirty_tasks_and_never_above_the_maximum(
    mesh: ForebayUp, tasks: int, replicas: int
) -> None:
    """Beam, queue depth: 30 tasks for each replica."""
    name = f"depth-{tasks}"
    deploy(
        mesh,
        name,
        policy="queue_depth",
        max_tasks_per_replica=30,
        max_replicas=3,
        downscale_delay_s=2,
        downscale_to_zero_delay_s=2,
        **AT_ONCE,
    )
    depth = Watched(mesh, name)
    await depth.burst(tasks, 0.1)
    assert len(depth.finished_s) == tasks
    assert max(await depth.targets()) == replicas
    await depth.gone()


async def test_three_slow_requests_get_three_replicas_to_keep_the_latency(mesh: ForebayUp) -> None:
    """Beam, request latency: three requests that each take twice the desired latency."""
    service_s = 10.0
    deploy(
        mesh,
        "latency",
        policy="request_latency",
        desired_latency_s=service_s / 2,
        max_replicas=5,
        downscale_delay_s=2,
        downscale_to_zero_delay_s=2,
        **AT_ONCE,
    )
    latency = Watched(mesh, "latency")
    await latency.burst(3, service_s)
    assert max(await latency.targets()) == 3
    # Side by side: one after the other, the last would end two service times after the first.
    assert max(latency.finished_s) - min(latency.finished_s) < service_s
    await latency.gone()


async def test_asking_what_a_model_takes_wakes_it(mesh: ForebayUp) -> None:
    """Clients look at readiness and metadata first; neither may keep them from the first call."""
    deploy(mesh, "asked", policy="queue_depth", downscale_to_zero_delay_s=2, **AT_ONCE)
    asked = Watched(mesh, "asked")
    with tritongrpc.InferenceServerClient(mesh.mesh["router"]) as client:
        await eventually(lambda: client.is_model_ready("asked"))
        assert await asked.running() == 0
        metadata = await asyncio.to_thread(
            client.get_model_metadata, "asked", client_timeout=CALL_TIMEOUT_S
        )
        assert "IN_FP32" in [tensor.name for tensor in metadata.inputs]
        await asked.gone()
        # It is known by now: no replica is started for it.
        client.get_model_metadata("asked", client_timeout=30)
        assert await asked.running() == 0


async def test_every_decision_that_was_made_comes_out_the_same_again(mesh: ForebayUp) -> None:
    deploy(mesh, "replayed", policy="queue_depth", initial_replicas=0)
    await eventually(lambda: check_decisions(mesh.mesh["autoscaler"]) > 0)
