"""An engine that is down, slow, full or restarted; images that are not there; two launchers."""

import asyncio
import contextlib
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from forebay.v1 import launcher_pb2 as pb
from services.launcher import main
from services.launcher.main import serve
from services.launcher.settings import LauncherSettings
from services.runtime.health_probe import NotServingError, probe
from tests.support.docker_engine import (
    EngineApi,
    OwnEngine,
    need_engine,
    obey,
    stand_in_archive,
    stand_in_image,
    stand_in_name,
)
from tests.support.eventually import eventually
from tests.support.image_registry import ImageRegistry, image_registry, layer
from tests.support.launcher import LauncherClient, launcher, new_mesh
from tests.support.scripted_engine import Rule, ScriptedEngine, scripted_engine

RUNNING = pb.ReplicaContainer.STATE_RUNNING
EXITED = pb.ReplicaContainer.STATE_EXITED
UNKNOWN = pb.ReplicaContainer.STATE_UNKNOWN
PYTHON_IMAGE = "python:3.11-slim-bookworm"


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
def short_path() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="fe"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def scripted(engine: EngineApi, short_path: Path) -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(short_path / "engine.sock", engine.path) as made:
        yield made


@pytest.fixture
async def client(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path, scripted: ScriptedEngine
) -> AsyncIterator[LauncherClient]:
    async with launcher(
        engine, tmp_path, image, mesh, engine=scripted.url, engine_timeout_s=5.0,
        allowed_images=["registry.invalid/x:*"],
    ) as connected:  # fmt: skip
        yield connected


async def error_of(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def looked(client: LauncherClient) -> pb.GetLauncherResponse:
    found: pb.GetLauncherResponse = await client.stub.GetLauncher(pb.GetLauncherRequest())
    return found


async def usable(client: LauncherClient) -> bool:
    return bool((await looked(client)).usable)


async def test_an_engine_that_is_down_is_a_state(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    await scripted.cut()
    found = await looked(client)
    assert not found.usable
    assert "systemctl start docker" in found.message
    assert found.engine_version == ""
    error = await error_of(client.stub.ListReplicas(pb.ListReplicasRequest()))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "does not answer" in str(error.details())
    await scripted.listen()
    assert (await looked(client)).usable


async def test_health_says_whether_the_engine_may_be_used(
    client: LauncherClient, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "LOOK_INTERVAL_S", 0.2)

    async def health(service: str = main.SERVICE_NAME) -> str:
        try:
            await asyncio.to_thread(probe, client.address, 15.0, service)
        except NotServingError as error:
            return str(error)
        return "serves"

    async def said(word: str) -> bool:
        return word in await health()

    assert await health() == "serves"
    await scripted.cut()
    await eventually(lambda: said("NOT_SERVING"))
    # The process itself is well: to start it again would mend nothing.
    assert await health("") == "serves"
    await scripted.listen()
    await eventually(lambda: said("serves"))


async def test_an_engine_that_is_slow_is_given_up_in_time(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    request = await client.request()
    scripted.add(Rule("POST /v1.41/containers/create", delay_s=30))
    async with asyncio.timeout(25):
        error = await error_of(client.stub.StartReplica(request))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "did not answer within 5 s" in str(error.details())


async def test_what_answers_but_is_no_engine_is_said(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    scripted.add(Rule("/version", status=200, body=b"[]"))
    assert "no container engine" in (await looked(client)).message


async def test_an_error_of_the_engine_is_passed_on_with_what_to_do(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    request = await client.request()
    scripted.add(Rule("/start", status=500, body="driver failed: cannot allocate"))
    error = await error_of(client.stub.StartReplica(request))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "driver failed: cannot allocate" in str(error.details())
    # Nothing half made is left.
    assert await client.listed() == {}


async def test_a_port_clash_says_so(client: LauncherClient, scripted: ScriptedEngine) -> None:
    request = await client.request()
    scripted.add(Rule("/start", status=500, body="Address already in use"))
    error = await error_of(client.stub.StartReplica(request))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS


async def test_a_watch_outlives_an_engine_that_goes_and_comes_back(
    client: LauncherClient, scripted: ScriptedEngine, engine: EngineApi
) -> None:
    container = await client.start()
    call = client.watch(container.replica_id)
    assert (await call.read()).container.state == RUNNING
    await scripted.cut()
    away = (await call.read()).container
    assert away.state == UNKNOWN
    assert "does not answer" in away.message
    # What happens meanwhile is seen afterwards.
    engine.call("POST", f"containers/{container.container_id}/kill")
    await scripted.listen()
    ended = (await call.read()).container
    assert (ended.state, ended.exit_code) == (EXITED, 137)
    assert await call.read() is grpc.aio.EOF


async def test_a_log_is_followed_on_after_the_engine_was_away(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    container = await client.start()
    request = pb.FollowReplicaLogRequest(replica_id=container.replica_id)
    call = client.stub.FollowReplicaLog(request)
    text = ""
    while "listening\n" not in text:
        text += (await call.read()).text
    await scripted.cut()
    assert obey(container.address, "print meanwhile") == "printed"
    await scripted.listen()
    while "meanwhile\n" not in text:
        text += (await call.read()).text
    assert text.count("listening\n") == 1
    call.cancel()


async def test_a_full_disk_on_pull_says_what_to_clear(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    step = b'{"status":"Downloading","id":"a"}\n'
    full = b'{"error":"write /var/lib/docker/0: no space left on device"}\n'
    scripted.add(Rule("POST /v1.41/images/create", status=200, body=step + full))
    error = await error_of(client.image_id("registry.invalid/x:1"))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "data-root is full" in str(error.details())


async def test_a_registry_that_cannot_be_reached_says_so(
    client: LauncherClient, scripted: ScriptedEngine
) -> None:
    scripted.add(Rule("POST /v1.41/images/create", status=500, body="dial tcp: no such host"))
    error = await error_of(client.image_id("registry.invalid/x:1"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "registry cannot be reached" in str(error.details())


async def test_an_image_is_pulled_once_with_progress(
    engine: EngineApi, mesh: str, tmp_path: Path
) -> None:
    registry = ImageRegistry(stand_in_archive(), layer("weights", b"w" * 1024**2))
    registry.delay_s = 1.5
    with image_registry(registry) as address:
        name = f"{address}/{registry.name}:1"
        try:
            async with launcher(engine, tmp_path, name, mesh) as client:

                async def prepare() -> list[pb.PrepareImageResponse]:
                    call = client.stub.PrepareImage(pb.PrepareImageRequest())
                    return [response async for response in call]

                first, second = await asyncio.gather(prepare(), prepare())
                assert first[-1].image_id == second[-1].image_id == registry.image_id
                assert f"pulling {name}" in first[0].progress
                assert "pulling" in second[0].progress
                assert first[-1].progress == ""
                layers = [path for path in registry.requests if "/blobs/" in path]
                assert len(layers) == len(set(layers)), "pulled twice"
                container = await client.start()
                assert await eventually(lambda: obey(container.address, "ids")) == "1000 1000"
        finally:
            engine.call("DELETE", f"images/{name}", force="true")


async def test_an_image_by_its_digest_is_pulled_and_one_that_is_not_there_is_not(
    engine: EngineApi, mesh: str, tmp_path: Path
) -> None:
    registry = ImageRegistry(layer("file", mesh.encode()))
    with image_registry(registry) as address:
        name = f"{address}/{registry.name}"
        settings = {"allowed_images": [f"{name}:*"]}
        pinned = f"{name}:26.06@{registry.digest}"
        try:
            async with launcher(engine, tmp_path, pinned, mesh, **settings) as client:
                assert await client.image_id() == registry.image_id
                error = await error_of(client.image_id(f"{name}:2"))
                assert error.code() == grpc.StatusCode.NOT_FOUND
                assert "no such image" in str(error.details())
        finally:
            with contextlib.suppress(RuntimeError):
                engine.call("DELETE", f"images/{registry.image_id}", force="true")


async def test_two_launchers_of_one_node_refuse_each_other(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    async with launcher(engine, tmp_path, image, mesh):
        again = LauncherSettings(
            mesh=mesh, node="node-1", state_dir=tmp_path / "state", engine=engine.url,
            socket=tmp_path / "s", default_image=image, network=mesh,
        )  # fmt: skip
        with pytest.raises(OSError, match="another launcher runs with state_dir"):
            await serve(again, asyncio.Event())


async def test_a_stale_socket_is_replaced_and_only_the_group_may_use_it(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path, short_path: Path
) -> None:
    path = short_path / "own" / "l.sock"
    path.parent.mkdir(mode=0o750)
    # As a launcher that was killed leaves it.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with launcher(engine, tmp_path, image, mesh, socket=path) as client:
        assert (await looked(client)).usable
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert not path.exists()


async def test_an_engine_that_is_killed_and_started_again(
    short_path: Path, mesh: str, tmp_path: Path
) -> None:
    """Its containers end with it or before it listens again; the watch says so either way."""
    need_engine()
    with OwnEngine(short_path) as own:
        name = stand_in_name()
        own.api.import_image(name, stand_in_archive(), "ENV PATH=/bin")
        async with launcher(own.api, tmp_path, name, mesh) as client:
            container = await client.start()
            call = client.watch(container.replica_id)
            assert (await call.read()).container.state == RUNNING
            await asyncio.to_thread(own.end, signal.SIGKILL)
            assert (await call.read()).container.state == UNKNOWN
            assert not (await looked(client)).usable
            await asyncio.to_thread(own.start)
            async with asyncio.timeout(60):
                while (ended := (await call.read()).container).state != EXITED:
                    pass
            assert ended.message
            await eventually(lambda: usable(client))
            again = await client.start()
            assert await eventually(lambda: obey(again.address, "ids")) == "1000 1000"
            await client.stop(again.replica_id, grace_s=5)
