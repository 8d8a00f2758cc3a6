"""The autoscaler with a real nats-server and a real metrics; only Triton is missing."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from forebay.v1.autoscaler_pb2 import WatchAssignmentsRequest
from forebay.v1.node_pb2 import ReplicaStatus
from services.wire import streams
from services.wire.nats_link import NatsLink
from tests.support.agent import Agent, ready
from tests.support.control_plane import ControlPlane, control_plane, linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


@pytest.fixture
async def link(mesh: ControlPlane) -> AsyncIterator[NatsLink]:
    async with linked(mesh.nats.url) as made:
        yield made


async def test_places_the_replicas_of_a_new_deployment_on_a_node(
    mesh: ControlPlane, link: NatsLink
) -> None:
    node = await mesh.agent(Agent("node-a"))
    made = await mesh.create("add", replicas=2)
    assert made.generation == 1
    assert made.max_ongoing_requests == 8
    await mesh.ready("add", 2)
    assert [a.deployment for a in node.assignments] == ["deployments/add"] * 2
    assert {a.model_digest for a in node.assignments} == {made.model_digest}
    assert node.told[-1].epoch == 1
    assert await streams.request_consumer_info(link.jetstream, "add") is not None


async def test_scales_without_a_new_generation(mesh: ControlPlane) -> None:
    node = await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    first = node.assignments[0].replica_id
    assert (await mesh.update("add", "replicas", replicas=3)).generation == 1
    await mesh.ready("add", 3)
    assert first in {a.replica_id for a in node.assignments}
    await mesh.update("add", "replicas", replicas=0)
    await eventually(lambda: node.assignments == [])


async def test_says_why_replicas_have_no_place(mesh: ControlPlane) -> None:
    await mesh.create("add", replicas=2)

    async def message() -> str:
        return (await mesh.get("add")).status.message

    await eventually(lambda: _contains(message, "there is no node yet"))
    await mesh.agent(Agent("node-a", slots=1))
    await eventually(lambda: _contains(message, "node-a: all 1 slots are taken"))
    await mesh.agent(Agent("node-b", slots=1))
    await mesh.ready("add", 2)


async def _contains(message: object, text: str) -> bool:
    return text in await message()  # type: ignore[operator]


async def test_says_why_a_replica_failed(mesh: ControlPlane) -> None:
    await mesh.agent(Agent("node-a", state_of=lambda _: ReplicaStatus.STATE_FAILED))
    await mesh.create("add", replicas=1)

    async def failed() -> bool:
        status = (await mesh.get("add")).status
        return status.failed_replica_count == 1 and "Triton said no" in status.message

    await eventually(failed)


async def test_replaces_replicas_one_by_one_on_a_new_generation(mesh: ControlPlane) -> None:
    node = await mesh.agent(Agent("node-a", slots=3))
    await mesh.create("add", replicas=2)
    await mesh.ready("add", 2)
    changed = await mesh.update("add", model_digest=await mesh.upload("other"))
    assert changed.generation == 2
    await mesh.ready("add", 2)
    # The status may tell of the last step before the node hears of it.
    await eventually(lambda: node.generations == [2, 2])
    seen = [sorted(a.generation for a in told.assignments) for told in node.told]
    replacing = seen[seen.index([1, 1]) :]
    assert all(len(generations) >= 2 for generations in replacing)
    assert max(len(generations) for generations in replacing) == 3


async def test_a_new_generation_that_fails_does_not_take_the_old_one_down(
    mesh: ControlPlane,
) -> None:
    def state_of(assignment) -> ReplicaStatus.State:
        good = assignment.generation == 1
        return ReplicaStatus.STATE_READY if good else ReplicaStatus.STATE_FAILED

    node = await mesh.agent(Agent("node-a", slots=3, state_of=state_of))
    await mesh.create("add", replicas=2)
    await mesh.ready("add", 2)
    await mesh.update("add", model_digest=await mesh.upload("bad"))

    async def failed() -> bool:
        status = (await mesh.get("add")).status
        return status.failed_replica_count == 1 and status.ready_replica_count == 2

    await eventually(failed)
    assert node.generations == [1, 1, 2]
    node.state_of = ready
    await mesh.update("add", model_digest=await mesh.upload("repaired"))
    await mesh.ready("add", 2)
    await eventually(lambda: node.generations == [3, 3])


async def test_makes_room_where_there_is_none_for_a_new_replica(mesh: ControlPlane) -> None:
    node = await mesh.agent(Agent("node-a", slots=1))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    node.slow_to_stop = True
    await mesh.update("add", "max_ongoing_requests", max_ongoing_requests=2)
    await eventually(lambda: node.assignments == [])
    told = len(node.told)
    # While the old replica drains, its slot is taken.
    await eventually(lambda: _drains(mesh))
    assert len(node.told) == told
    node.slow_to_stop = False
    await mesh.ready("add", 1)
    assert node.generations == [2]


async def _drains(mesh: ControlPlane) -> bool:
    status = (await mesh.get("add")).status
    return status.draining_replica_count == 1 and "all 1 slots are taken" in status.message


async def test_moves_replicas_when_their_node_is_gone_longer_than_the_grace_period(
    mesh: ControlPlane,
) -> None:
    async with Agent("node-a").running(mesh.metrics, mesh.autoscaler) as first:
        await mesh.create("add", replicas=2)
        await mesh.ready("add", 2)
        assert len(first.assignments) == 2
        second = await mesh.agent(Agent("node-b"))
    await eventually(lambda: len(second.assignments) == 2)
    await mesh.ready("add", 2)


async def test_moves_replicas_away_from_a_node_that_drains(mesh: ControlPlane) -> None:
    first = await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    second = await mesh.agent(Agent("node-b"))
    first.draining = True
    await eventually(lambda: len(second.assignments) == 1 and not first.assignments)


async def test_a_restart_of_the_autoscaler_changes_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nats = stack.enter_context(NatsServer(tmp_path / "nats"))
        mesh = ControlPlane(nats, tmp_path, stack)
        await mesh.start()
        async with mesh.autoscaling():
            async with Agent("node-a").running(mesh.metrics, mesh.autoscaler) as node:
                await mesh.create("add", replicas=2)
                await mesh.ready("add", 2)
                before = node.told[-1]
        # Metrics cannot be reached, so the mesh is not seen at all.
        async with mesh.autoscaling(metrics="127.0.0.1:1"):
            await mesh.update("add", "replicas", replicas=0)

            async def blind() -> bool:
                return "metrics does not answer" in (await mesh.get("add")).status.message

            await eventually(blind)
            request = WatchAssignmentsRequest(node="nodes/node-a")
            call = mesh.watches.WatchAssignments(request)
            told = await call.read()
            call.cancel()
            assert told.assignments == before.assignments
            assert told.revision == before.revision
            assert told.epoch == before.epoch + 1


async def test_places_fractions_of_gpus_together_and_never_twice_on_one_share(
    mesh: ControlPlane,
) -> None:
    node = await mesh.agent(Agent("node-a", slots=0, gpus=("GPU-1", "GPU-2")))
    await mesh.create("half", replicas=3, resources={"gpus": 0.5})
    await mesh.ready("half", 3)
    held = sorted(a.gpu_uuids[0] for a in node.assignments)
    assert held == ["GPU-1", "GPU-1", "GPU-2"]
