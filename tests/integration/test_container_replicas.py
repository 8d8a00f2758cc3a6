"""Replicas in containers: router, NATS, agent, launcher, and a real Triton on the real engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.v1.node_pb2 import REPLICA_RUNTIME_DOCKER
from tests.support.container_node import ContainerMesh, container_mesh, docker
from tests.support.eventually import eventually


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ContainerMesh]:
    async with container_mesh(tmp_path) as made:
        yield made


async def test_a_request_is_answered_by_a_container_whose_key_nobody_else_may_read(
    mesh: ContainerMesh,
) -> None:
    node = await mesh.node()
    await node.start_agent()
    told = mesh.assignment(environment={"MINE": "yes"})
    await node.say(told)
    status = await node.ready(told.replica_id)
    assert await mesh.ask("hello") == "hello"

    assert node.last.runtime == REPLICA_RUNTIME_DOCKER
    assert not node.last.runtime_message
    assert status.image_id.startswith("sha256:")
    assert status.startup_time.ToMilliseconds() > 0
    record = node.state_dir / "replicas" / told.replica_id / "container.json"
    assert record.stat().st_mode & 0o777 == 0o600
    log = record.with_name("triton.log")
    await eventually(lambda: "Started GRPCInferenceService" in log.read_text())
    await eventually(lambda: node.replica(told.replica_id).resident_memory_bytes > 0)

    await node.say()
    await eventually(lambda: not node.last.replicas)
    assert not node.containers()


async def test_an_agent_that_was_killed_is_followed_by_one_that_goes_on_with_its_containers(
    mesh: ContainerMesh,
) -> None:
    """Requests are under way when it dies; all of them are answered."""
    node = await mesh.node()
    await node.start_agent()
    told = mesh.assignment()
    await node.say(told)
    await node.ready(told.replica_id)
    before = node.container(told.replica_id)

    asked = [asyncio.create_task(mesh.ask(f"wait:{0.2 * n:g}")) for n in range(12)]
    await eventually(lambda: node.replica(told.replica_id).ongoing_count == 4)
    node.kill_agent()
    node.leader.reports.clear()
    await node.start_agent()
    adopted = await node.ready(told.replica_id)
    assert adopted.start_count == 0
    assert adopted.startup_time.ToMilliseconds() > 0
    assert await asyncio.gather(*asked) == [f"wait:{0.2 * n:g}" for n in range(12)]
    assert node.container(told.replica_id) == before
    log = (node.state_dir / "replicas" / told.replica_id / "triton.log").read_text()
    assert log.count("Started GRPCInferenceService") == 1


async def test_containers_that_nobody_is_assigned_any_more_are_removed(mesh: ContainerMesh) -> None:
    node = await mesh.node()
    await node.start_agent()
    told = mesh.assignment()
    await node.say(told)
    await node.ready(told.replica_id)
    node.kill_agent()
    (node.state_dir / "replicas" / told.replica_id / "assignment.bin").unlink()
    await node.say()
    await node.start_agent()
    await eventually(lambda: not node.containers())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("kill", "SIGKILL"), ("pause", "paused from outside for more than 3 s"), ("rm", "SIGKILL")],
)
async def test_a_container_that_is_lost_is_replaced_and_its_requests_are_answered(
    mesh: ContainerMesh, fault: str, reason: str
) -> None:
    node = await mesh.node()
    await node.start_agent()
    told = mesh.assignment()
    await node.say(told)
    await node.ready(told.replica_id)
    asked = [asyncio.create_task(mesh.ask("wait:1", 60)) for _ in range(6)]
    await eventually(lambda: node.replica(told.replica_id).ongoing_count == 4)
    command = ("rm", "-f") if fault == "rm" else (fault,)
    await asyncio.to_thread(docker, *command, node.container(told.replica_id))
    assert await asyncio.gather(*asked) == ["wait:1"] * 6
    # The last report may be of the one that was lost.
    again = await node.ready(told.replica_id, at_least_starts=2)
    assert again.start_count == 2

    def told_why() -> bool:
        said = {r.message for _, report in node.leader.reports for r in report.replicas}
        assert any(reason in message for message in said), said
        return True

    await eventually(told_why)
    assert len(node.containers()) == 1
