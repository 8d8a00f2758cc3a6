"""What becomes of replicas in containers when launcher, engine, image or memory fails them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from forebay.v1.deployment_pb2 import ReplicaResources
from forebay.v1.node_pb2 import ReplicaStatus
from tests.support.container_node import IMAGE, ContainerMesh, container_mesh, docker
from tests.support.engine_proxy import engine_proxy
from tests.support.eventually import eventually

MIB = 1 << 20


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ContainerMesh]:
    async with container_mesh(tmp_path) as made:
        yield made


async def test_an_image_that_is_not_allowed_or_not_there_is_said_in_the_replicas_status(
    mesh: ContainerMesh,
) -> None:
    node = await mesh.node(allowed_images=["forebay.invalid/missing:1"])
    await node.start_agent()
    forbidden = mesh.assignment(1, image="somebody/else:1")
    missing = mesh.assignment(2, image="forebay.invalid/missing:1")
    await node.say(forbidden, missing)

    def failed(replica_id: str) -> str:
        replica = node.replica(replica_id)
        assert replica.state == ReplicaStatus.STATE_FAILED, replica.message
        return replica.message

    said = await eventually(lambda: failed(forbidden.replica_id), timeout_s=60)
    assert "somebody/else:1 is not allowed on this node" in said
    said = await eventually(lambda: failed(missing.replica_id), timeout_s=60)
    assert "forebay.invalid/missing:1" in said
    assert not node.containers()


async def test_a_model_that_takes_too_much_memory_is_told_so_and_others_are_answered(
    mesh: ContainerMesh,
) -> None:
    node = await mesh.node()
    await node.start_agent()
    told = mesh.assignment(resources=ReplicaResources(memory_bytes=256 * MIB))
    await node.say(told)
    await node.ready(told.replica_id)
    with pytest.raises(InferenceServerException) as caught:
        await mesh.ask(f"big:{1 << 30}", 60)
    assert caught.value.status() == f"StatusCode.{grpc.StatusCode.ABORTED.name}"
    assert await mesh.ask("after", 60) == "after"

    def told_so() -> bool:
        said = {r.message for _, report in node.leader.reports for r in report.replicas}
        assert any("memory" in message for message in said), said
        return True

    await eventually(told_so)


async def test_without_its_launcher_a_node_goes_on_serving_and_starts_nothing_new(
    mesh: ContainerMesh,
) -> None:
    node = mesh.bare_node()
    first, second = mesh.assignment(1), mesh.assignment(2)
    async with node.leader.serving():
        async with node.launching():
            await node.start_agent()
            await node.say(first)
            await node.ready(first.replica_id)
            before = node.container(first.replica_id)
        try:
            await eventually(lambda: "forebay-launcher" in node.last.runtime_message)
            assert await mesh.ask("without") == "without"
            await node.say(first, second)
            await eventually(
                lambda: "waiting to be started" in node.replica(second.replica_id).message
            )
            # Nor does a new agent need it to go on.
            node.kill_agent()
            node.leader.reports.clear()
            await node.start_agent()
            await node.ready(first.replica_id)
            assert await mesh.ask("adopted") == "adopted"
            async with node.launching():
                await node.ready(second.replica_id)
                await eventually(lambda: not node.last.runtime_message)
                assert node.container(first.replica_id) == before
                # What is stopped while it is away goes when it is back.
                await node.say(second)
                await eventually(lambda: len(node.containers()) == 1)
                await node.stop_agent()
        finally:
            await node.stop_agent()


async def test_an_engine_that_is_away_or_hangs_keeps_no_request_and_no_report_from_coming(
    mesh: ContainerMesh, tmp_path: Path
) -> None:
    async with engine_proxy(Path(f"/tmp/{mesh.name}-engine.sock")) as engine:
        node = await mesh.node(engine=engine.url, engine_timeout_s=1)
        await node.start_agent()
        told = mesh.assignment()
        await node.say(told)
        await node.ready(told.replica_id)
        before = node.container(told.replica_id)
        for fault in ("away", "hanging"):
            if fault == "away":
                await engine.cut()
            else:
                engine.stall()
            await eventually(lambda: "engine" in node.last.runtime_message)
            node.leader.reports.clear()
            assert await mesh.ask(fault) == fault
            await eventually(lambda: len(node.leader.reports) > 2)
            assert node.replica(told.replica_id).state == ReplicaStatus.STATE_READY
            await engine.restore()
            await eventually(lambda: not node.last.runtime_message)
        assert node.container(told.replica_id) == before
        # And what happens to a container meanwhile is seen afterwards.
        await engine.cut()
        await asyncio.to_thread(docker, "kill", before)
        await engine.restore()
        await node.ready(told.replica_id, at_least_starts=2)
        await node.stop_agent()


async def test_two_agents_on_one_machine_leave_each_others_containers_alone(
    mesh: ContainerMesh,
) -> None:
    one, other = await mesh.node(), await mesh.node()
    told = mesh.assignment()
    for node in (one, other):
        await node.start_agent()
        await node.say(told)
        await node.ready(told.replica_id)
    kept = other.container(told.replica_id)
    asked = [asyncio.create_task(mesh.ask("wait:1", 60)) for _ in range(8)]
    await eventually(lambda: one.replica(told.replica_id).ongoing_count > 0)
    await asyncio.to_thread(docker, "pause", one.container(told.replica_id))
    assert await asyncio.gather(*asked) == ["wait:1"] * 8
    await one.stop_agent()
    assert not one.containers()
    assert other.container(told.replica_id) == kept
    assert docker("inspect", "-f", "{{.State.Status}}", kept) == "running"


async def test_a_large_body_reaches_a_container_that_sees_no_memory_of_the_machine(
    mesh: ContainerMesh,
) -> None:
    node = await mesh.node()
    await node.start_agent()
    told = mesh.assignment()
    await node.say(told)
    await node.ready(told.replica_id)
    word = "x" * (5 * MIB)
    assert await mesh.ask(word) == word


async def test_a_replica_sees_the_launchers_volumes_and_what_its_model_requires(
    mesh: ContainerMesh, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    node = await mesh.node(volumes={"data": str(shared)})
    await node.start_agent("", "", "--volumes", "data=/not/seen/by/the/agent")
    model = tmp_path / "needy"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text((tmp_path / "chaos/model/config.pbtxt").read_text())
    source = (tmp_path / "chaos/model/1/model.py").read_text()
    line = 'open(os.environ["FOREBAY_VOLUME_DATA"] + "/seen", "w").write(iniconfig.__name__)\n'
    (model / "1" / "model.py").write_text(f"import os\nimport iniconfig\n{line}{source}")
    (model / "requirements.txt").write_text("iniconfig==2.0.0\n")
    digest = await mesh.upload(model)
    told = mesh.assignment(model_digest=digest, volumes=[{"name": "data"}])
    await node.say(told)
    await node.ready(told.replica_id)
    assert (shared / "seen").read_text() == "iniconfig"
    assert docker("image", "inspect", "-f", "{{.Id}}", IMAGE) == node.last.replicas[0].image_id
