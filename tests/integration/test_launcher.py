"""The launcher on a real engine: what it starts, shows, follows and stops."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from forebay.v1 import launcher_pb2 as pb
from services.launcher import replicas
from tests.support.docker_engine import EngineApi, need_engine, obey, stand_in_image
from tests.support.eventually import eventually
from tests.support.launcher import LauncherClient, launcher, new_mesh

RUNNING = pb.ReplicaContainer.STATE_RUNNING
PAUSED = pb.ReplicaContainer.STATE_PAUSED
EXITED = pb.ReplicaContainer.STATE_EXITED
GONE = pb.ReplicaContainer.STATE_GONE


@pytest.fixture(scope="module")
def engine() -> EngineApi:
    return need_engine()


@pytest.fixture(scope="module")
def image(engine: EngineApi) -> Iterator[str]:
    with stand_in_image(engine) as name:
        yield name


@pytest.fixture
def mesh() -> str:
    return new_mesh()


@pytest.fixture
async def client(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> AsyncIterator[LauncherClient]:
    (tmp_path / "data").mkdir()
    volumes = {"data": f"{tmp_path}/data:ro"}
    async with launcher(engine, tmp_path, image, mesh, volumes=volumes) as connected:
        yield connected


async def refused(call: "grpc.aio.UnaryUnaryCall[object, object]") -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_says_what_it_can_do(client: LauncherClient, image: str) -> None:
    found = await client.stub.GetLauncher(pb.GetLauncherRequest())
    assert found.usable, found.message
    assert (found.node, found.default_image, found.message) == ("node-1", image, "")
    assert found.engine_version


async def test_a_replica_runs_and_answers_on_its_address(client: LauncherClient) -> None:
    container = await client.start(variables={"MODE": "fast"})
    assert container.state == RUNNING
    assert await eventually(lambda: obey(container.address, "ids")) == "1000 1000"
    environment = obey(container.address, "read /proc/self/environ").split("\0")
    assert "MODE=fast" in environment
    assert "NVIDIA_VISIBLE_DEVICES=void" in environment
    await client.stop(container.replica_id)
    assert await client.listed() == {}


async def test_starting_again_returns_the_container_that_runs(client: LauncherClient) -> None:
    request = await client.request()
    first, second = await asyncio.gather(
        client.stub.StartReplica(request), client.stub.StartReplica(request)
    )
    assert first.container.container_id == second.container.container_id
    request.generation += 1
    error = await refused(client.stub.StartReplica(request))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "stop it first" in str(error.details())


async def test_a_replica_that_has_ended_is_started_anew(client: LauncherClient) -> None:
    request = await client.request()
    first = (await client.stub.StartReplica(request)).container
    await eventually(lambda: obey(first.address, "exit 3") == "")
    assert [c.state async for c in states(client, first.replica_id)][-1] == EXITED
    second = (await client.stub.StartReplica(request)).container
    assert second.state == RUNNING
    assert second.container_id != first.container_id


async def test_a_list_says_memory_and_processes(client: LauncherClient) -> None:
    container = await client.start()
    await eventually(lambda: obey(container.address, f"hog {20 * 1024**2}") == "held")
    found = (await client.listed())[container.replica_id]
    assert 20 * 1024**2 < found.memory_used_bytes < 40 * 1024**2
    (process_id,) = found.process_ids
    assert "tritonserver" in Path(f"/proc/{process_id}/cmdline").read_text()


async def test_memory_leaves_out_the_files_that_were_read(
    client: LauncherClient, tmp_path: Path
) -> None:
    (tmp_path / "data" / "big").write_bytes(b"x" * 30 * 1024**2)
    volume = pb.StartReplicaRequest.ReplicaVolume(name="data", read_only=True)
    container = await client.start(volumes=[volume])
    read = await eventually(lambda: obey(container.address, "read /forebay/volumes/data/big"))
    assert len(read) == 30 * 1024**2
    assert (await client.listed())[container.replica_id].memory_used_bytes < 15 * 1024**2


async def states(client: LauncherClient, replica_id: str) -> AsyncIterator[pb.ReplicaContainer]:
    async for response in client.watch(replica_id):
        yield response.container


async def test_a_watch_shows_every_change_and_ends_with_the_exit(
    client: LauncherClient, engine: EngineApi
) -> None:
    container = await client.start()
    watched = states(client, container.replica_id)
    assert (await anext(watched)).state == RUNNING
    engine.call("POST", f"containers/{container.container_id}/pause")
    paused = await anext(watched)
    assert paused.state == PAUSED
    assert "docker unpause" in paused.message
    engine.call("POST", f"containers/{container.container_id}/unpause")
    assert (await anext(watched)).state == RUNNING
    engine.call("POST", f"containers/{container.container_id}/kill")
    killed = await anext(watched)
    assert (killed.state, killed.exit_code, killed.out_of_memory) == (EXITED, 137, False)
    assert "killed from outside" in killed.message
    assert [more async for more in watched] == []


async def test_a_watch_shows_a_removal(client: LauncherClient, engine: EngineApi) -> None:
    container = await client.start()
    watched = states(client, container.replica_id)
    assert (await anext(watched)).state == RUNNING
    engine.call("DELETE", f"containers/{container.container_id}", force="true")
    assert [more.state async for more in watched][-1] in (GONE, EXITED)
    assert [more.state async for more in states(client, container.replica_id)] == [GONE]


async def test_a_replica_over_its_memory_says_so(client: LauncherClient) -> None:
    container = await client.start()
    watched = states(client, container.replica_id)
    assert (await anext(watched)).state == RUNNING
    await eventually(lambda: obey(container.address, f"hog {500 * 1024**2}") == "")
    ended = [more async for more in watched][-1]
    assert (ended.state, ended.out_of_memory) == (EXITED, True)
    assert "it used more memory than its limit of 64 MiB" in ended.message


async def test_a_process_in_it_over_its_memory_is_told_while_it_runs_on(
    client: LauncherClient,
) -> None:
    container = await client.start()
    watched = states(client, container.replica_id)
    assert (await anext(watched)).state == RUNNING
    said = await eventually(lambda: obey(container.address, f"child-hog {500 * 1024**2}"))
    assert said == "child 9"
    told = await anext(watched)
    assert (told.state, told.out_of_memory) == (RUNNING, True)
    assert "a process in it" in told.message


@pytest.mark.parametrize(
    ("line", "code", "said"), [("exit 0", 0, "without an error"), ("exit 3", 3, "exit code 3")]
)
async def test_an_exit_has_its_code_and_a_sentence(
    client: LauncherClient, line: str, code: int, said: str
) -> None:
    container = await client.start()
    await eventually(lambda: obey(container.address, line) == "")
    ended = [more async for more in states(client, container.replica_id)][-1]
    assert (ended.state, ended.exit_code) == (EXITED, code)
    assert said in ended.message


async def test_a_graceful_stop_lets_it_end_by_itself(
    client: LauncherClient, engine: EngineApi
) -> None:
    container = await client.start()
    text = ""

    async def follow() -> None:
        nonlocal text
        request = pb.FollowReplicaLogRequest(replica_id=container.replica_id)
        async for response in client.stub.FollowReplicaLog(request):
            text += response.text

    following = asyncio.ensure_future(follow())
    # Stopped earlier, it would be gone before the engine has found its log.
    await eventually(lambda: "listening" in text)
    await client.stop(container.replica_id, grace_s=10)
    async with asyncio.timeout(60):
        await following
    assert "told to end" in text
    assert engine.containers(f"io.forebay.replica={container.replica_id}") == []


async def test_one_that_does_not_end_is_killed_after_its_grace(client: LauncherClient) -> None:
    container = await client.start(variables={"IGNORE_SIGTERM": "1"})
    await eventually(lambda: obey(container.address, "ids"))
    watched = states(client, container.replica_id)
    assert (await anext(watched)).state == RUNNING
    await client.stop(container.replica_id, grace_s=1)
    assert (await anext(watched)).state in (EXITED, GONE)
    assert await client.listed() == {}


async def test_a_node_has_a_largest_number_of_replicas(
    client: LauncherClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "MAX_LISTED", 1)
    first = await client.start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.start()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "at most 1 are started" in str(caught.value.details())
    await client.stop(first.replica_id)
    await client.start()


async def test_stopping_what_is_not_there_is_fine(client: LauncherClient) -> None:
    await client.stop("iris-00000000")
    await client.stop("iris-00000000", grace_s=5)


async def test_a_paused_replica_can_be_stopped(client: LauncherClient, engine: EngineApi) -> None:
    container = await client.start()
    engine.call("POST", f"containers/{container.container_id}/pause")
    await client.stop(container.replica_id, grace_s=1)
    assert await client.listed() == {}


async def test_a_log_is_followed_from_an_instant_to_the_end(client: LauncherClient) -> None:
    container = await client.start()
    request = pb.FollowReplicaLogRequest(replica_id=container.replica_id)
    call = client.stub.FollowReplicaLog(request)
    lines: list[str] = []
    while "listening\n" not in lines:
        response = await call.read()
        lines += response.text.splitlines(keepends=True)
    assert "flag --load-model=iris\n" in lines
    call.cancel()
    for word in ("one", "two"):
        assert obey(container.address, f"print {word}") == "printed"
    request.after_time.CopyFrom(response.written_time)
    call = client.stub.FollowReplicaLog(request)
    later = ""
    while "two\n" not in later:
        later += (await call.read()).text
    assert later == "one\ntwo\n"
    obey(container.address, "exit 0")
    assert await call.read() is grpc.aio.EOF


async def test_a_log_of_nothing_is_not_found(client: LauncherClient) -> None:
    call = client.stub.FollowReplicaLog(pb.FollowReplicaLogRequest(replica_id="iris-00000000"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_launcher_that_is_started_again_knows_its_containers(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    async with launcher(engine, tmp_path, image, mesh, keep=True) as first:
        container = await first.start()
    async with launcher(engine, tmp_path, image, mesh) as second:
        found = (await second.listed())[container.replica_id]
        assert found.container_id == container.container_id
        assert (found.state, found.address) == (RUNNING, container.address)
        await second.stop(container.replica_id)
        assert await second.listed() == {}


async def test_two_nodes_on_one_engine_do_not_touch_each_other(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    async with (
        launcher(engine, tmp_path / "1", image, mesh) as one,
        launcher(engine, tmp_path / "2", image, mesh, node="node-2") as two,
    ):
        container = await one.start()
        assert await two.listed() == {}
        await two.stop(container.replica_id)
        assert [c.state async for c in states(two, container.replica_id)] == [GONE]
        assert list(await one.listed()) == [container.replica_id]


async def test_two_nodes_with_one_name_by_mistake_do_not_touch_each_other_either(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    async with (
        launcher(engine, tmp_path / "1", image, mesh) as one,
        launcher(engine, tmp_path / "2", image, mesh) as two,
    ):
        container = await one.start()
        assert await two.listed() == {}
        await two.stop(container.replica_id)
        assert list(await one.listed()) == [container.replica_id]
