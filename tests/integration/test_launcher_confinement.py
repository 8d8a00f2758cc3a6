"""What a model can do from inside its container, tried from inside; and what is never started."""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from forebay.v1 import launcher_pb2 as pb
from services.launcher.environments import KEPT
from services.launcher.folders import folders_of
from services.launcher.request_check import check_start
from services.launcher.settings import LauncherSettings
from services.launcher.template import Surroundings, replica_container
from tests.support.docker_engine import EngineApi, need_engine, obey, stand_in_image
from tests.support.eventually import eventually
from tests.support.launcher import LauncherClient, launcher, new_mesh


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
    for name in ("data", "weights"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").write_text(f"of {name}")
    volumes = {"data": f"{tmp_path}/data", "weights": f"{tmp_path}/weights:ro"}
    settings: dict[str, Any] = {"volumes": volumes, "tmp_bytes": 16 * 1024**2, "pids": 64}
    async with launcher(engine, tmp_path, image, mesh, **settings) as connected:
        yield connected


async def started(client: LauncherClient, **fields: Any) -> tuple[pb.ReplicaContainer, str]:
    container = await client.start(**fields)
    await eventually(lambda: obey(container.address, "ids"))
    return container, container.address


async def refusal(client: LauncherClient, request: pb.StartReplicaRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.StartReplica(request)
    assert await client.listed() == {}
    return caught.value


async def test_it_has_no_right(client: LauncherClient) -> None:
    _, address = await started(client)
    status = dict(
        line.split(":\t", 1) for line in obey(address, "read /proc/self/status").splitlines()
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1000"] * 4
    assert status["Groups"].split() in ([], ["1000"])
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"] == "1"
    # Filtered by the engine's profile.
    assert status["Seccomp"] == "2"


async def test_it_can_write_nowhere_but_where_it_may(client: LauncherClient) -> None:
    volumes = [
        pb.StartReplicaRequest.ReplicaVolume(name="data"),
        pb.StartReplicaRequest.ReplicaVolume(name="weights", read_only=True),
    ]
    _, address = await started(client, volumes=volumes)
    for path in ("/x", "/bin/x", "/forebay/model/x", "/forebay/repository/x", "/forebay/volumes/x",
                 "/forebay/volumes/weights/x"):  # fmt: skip
        assert obey(address, f"write {path}").startswith("error"), path
    assert "Read-only file system" in obey(address, "write /forebay/model/x")
    for path in ("/tmp/0", "/dev/shm/x", "/forebay/volumes/data/x"):
        assert obey(address, f"write {path}") == "written", path
    assert obey(address, "read /forebay/volumes/weights/file") == "of weights"
    assert obey(address, "read /forebay/model/model.py") == "# a model\n"
    environment = obey(address, "read /proc/self/environ").split("\0")
    assert "FOREBAY_VOLUME_DATA=/forebay/volumes/data" in environment
    assert "FOREBAY_VOLUME_WEIGHTS_READ_ONLY=1" in environment


async def test_what_is_mounted_is_what_the_template_says(client: LauncherClient) -> None:
    _, address = await started(client)
    mounts = [line.split() for line in obey(address, "read /proc/self/mounts").splitlines()]
    options = {target: words.split(",") for _, target, _, words, *_ in mounts}
    assert "ro" in options["/"]
    assert {"rw", "nosuid", "nodev"} <= set(options["/tmp"])
    assert "noexec" not in options["/tmp"]
    assert any(word == "size=16384k" for word in options["/tmp"])
    ours = {target for target in options if target.startswith("/forebay")}
    assert ours == {"/forebay/model", "/forebay/repository"}
    assert not [target for target in options if "docker.sock" in target]


async def test_it_has_no_way_out(
    client: LauncherClient, engine: EngineApi, image: str, mesh: str
) -> None:
    """Not to a container of another network, which listens, and not to a name server."""
    _, address = await started(client)
    labels = {"io.forebay.mesh": mesh}
    other = f"{mesh}-other"
    engine.call("POST", "networks/create", {"Name": other})
    config = {"Image": image, "Cmd": ["tritonserver"], "Labels": labels}
    try:
        made = engine.call(
            "POST", "containers/create", {**config, "HostConfig": {"NetworkMode": other}}
        )["Id"]
        engine.call("POST", f"containers/{made}/start")
        found = engine.call("GET", f"containers/{made}/json")["NetworkSettings"]["Networks"]
        there = found[other]["IPAddress"]
        # This machine reaches it, so it listens.
        await eventually(lambda: obey(f"{there}:8001", "ids"))
        assert obey(address, f"connect {there} 8001").startswith("error")
        resolver = obey(address, "read /etc/resolv.conf")
        assert re.findall(r"^nameserver (\S+)", resolver, re.MULTILINE) == ["127.0.0.11"]
    finally:
        engine.call("DELETE", f"containers/{made}", force="true")
        engine.remove_network(other)


async def test_isolated_it_does_not_reach_this_machine_either(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    """This machine has no address in its network that it could reach."""
    settings: dict[str, Any] = {"isolate_network_from_host": True}
    async with launcher(engine, tmp_path, image, mesh, **settings) as client:
        await client.start()
        (network,) = engine.call("GET", "networks", filters=f'{{"name": ["{mesh}"]}}')
        assert network["Internal"]
        gateway = network["IPAM"]["Config"][0].get("Gateway", "")
        bridge = Path(f"/sys/class/net/br-{network['Id'][:12]}")
        if not bridge.exists() or not gateway:
            pytest.skip("the engine's bridges are not this machine's")
        with socket.socket() as listening:
            with pytest.raises(OSError, match="assign requested address"):
                listening.bind((gateway, 0))


async def test_a_network_that_reaches_this_machine_is_not_used_where_none_may(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    made = {"Name": mesh, "Driver": "bridge", "Internal": True}
    engine.call("POST", "networks/create", made)
    settings: dict[str, Any] = {"isolate_network_from_host": True}
    async with launcher(engine, tmp_path, image, mesh, **settings) as client:
        found = await client.stub.GetLauncher(pb.GetLauncherRequest())
        assert not found.usable
        assert f"the network {mesh} has an address of this machine" in found.message
        engine.remove_network(mesh)
        assert (await client.stub.GetLauncher(pb.GetLauncherRequest())).usable


async def test_no_port_is_published(client: LauncherClient, engine: EngineApi) -> None:
    container, _ = await started(client)
    found = engine.call("GET", f"containers/{container.container_id}/json")
    assert not [ports for ports in found["NetworkSettings"]["Ports"].values() if ports]
    assert list(found["NetworkSettings"]["Networks"]) == [found["HostConfig"]["NetworkMode"]]


async def test_limits_are_the_kernels(client: LauncherClient, engine: EngineApi) -> None:
    container, address = await started(client, cpus=0.5)
    found = engine.call("GET", f"containers/{container.container_id}/json")["HostConfig"]
    assert (found["Memory"], found["MemorySwap"]) == (64 * 1024**2, 64 * 1024**2)
    assert (found["NanoCpus"], found["PidsLimit"]) == (500_000_000, 64)
    limits = obey(address, "read /proc/self/limits")
    assert re.search(r"Max core file size\s+0\s+0", limits)


async def test_other_replicas_processes_are_not_seen(client: LauncherClient) -> None:
    await started(client)
    _, address = await started(client)
    assert obey(address, "read /proc/1/comm") == "tritonserver\n"
    assert obey(address, "read /proc/2/comm").startswith("error")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "../../../../etc"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model": "not-there"}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"environment_id": "0f" * 16}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"image_id": "sha256:" + "0f" * 32}, grpc.StatusCode.NOT_FOUND),
        ({"variables": {"LD_PRELOAD": "/x"}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"access_key": "short"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_hostile_request_starts_nothing(
    client: LauncherClient, changes: dict[str, Any], code: grpc.StatusCode
) -> None:
    assert (await refusal(client, await client.request(**changes))).code() == code


async def test_a_link_in_place_of_a_folder_is_not_followed(client: LauncherClient) -> None:
    request = await client.request()
    (client.state_dir / "models" / "linked").symlink_to("/etc")
    request.model = "linked"
    error = await refusal(client, request)
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "is a link" in str(error.details())


@pytest.mark.parametrize("where", ["launcher.lock", "environments"])
async def test_a_link_where_the_launcher_writes_is_not_followed(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path, where: str
) -> None:
    """A launcher that is root would empty a file, or remove folders, of anybody's."""
    precious = tmp_path / "precious"
    for number in range(KEPT + 2):
        (precious / f"folder-{number}.tmp").mkdir(parents=True)
        (precious / f"folder-{number}").mkdir()
    (precious / "file").write_text("precious")
    before = sorted(path.name for path in precious.rglob("*"))
    (tmp_path / "state").mkdir()
    target = precious / "file" if where == "launcher.lock" else precious
    (tmp_path / "state" / where).symlink_to(target)
    if where == "launcher.lock":
        with pytest.raises(OSError, match=r"launcher\.lock"):
            async with launcher(engine, tmp_path, image, mesh):
                pass
    else:
        async with launcher(engine, tmp_path, image, mesh) as client:
            request = pb.PrepareEnvironmentRequest(
                image_id=await client.image_id(), requirements=b"# none\n"
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [_ async for _ in client.stub.PrepareEnvironment(request)]
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "environments" in str(caught.value.details())
    assert sorted(path.name for path in precious.rglob("*")) == before
    assert (precious / "file").read_text() == "precious"


async def test_an_image_that_is_not_on_the_list_is_not_run_by_its_id_either(
    client: LauncherClient, engine: EngineApi
) -> None:
    """An agent may know the id of any image on this machine."""
    name = "forebay-test/other:1"
    engine.import_image(name, b"\0" * 10240, "ENV A=1")
    try:
        other = engine.call("GET", f"images/{name}/json")["Id"]
        error = await refusal(client, await client.request(image_id=other))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "allowed_images" in str(error.details())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.image_id(name)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    finally:
        engine.call("DELETE", f"images/{name}", force="true")


async def test_a_container_of_somebody_else_with_that_name_is_left_alone(
    client: LauncherClient, engine: EngineApi, image: str, mesh: str
) -> None:
    request = await client.request()
    name = f"{mesh}-node-1-{request.replica_id}"
    config = {"Image": image, "Cmd": ["tritonserver"], "Labels": {"of": mesh}}
    other = engine.call("POST", "containers/create", config, name=name)["Id"]
    try:
        error = await refusal(client, request)
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS
        assert name in str(error.details())
        await client.stop(request.replica_id)
        assert engine.call("GET", f"containers/{other}/json")["Id"] == other
    finally:
        engine.remove_all(f"of={mesh}")


async def test_a_network_that_is_not_internal_is_not_used(
    engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    engine.call("POST", "networks/create", {"Name": mesh, "Driver": "bridge"})
    async with launcher(engine, tmp_path, image, mesh) as client:
        found = await client.stub.GetLauncher(pb.GetLauncherRequest())
        assert not found.usable
        assert f"the network {mesh} is not internal" in found.message
        error = await refusal(client, await client.request())
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        engine.remove_network(mesh)
        assert (await client.stub.GetLauncher(pb.GetLauncherRequest())).usable


async def test_gpus_that_the_engine_cannot_give_say_what_to_install(
    client: LauncherClient,
) -> None:
    uuid = "GPU-0a1b2c3d-0000-1111-2222-333344445555"
    error = await refusal(client, await client.request(gpu_uuids=[uuid], gpus=1.0))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "NVIDIA Container Toolkit" in str(error.details())


async def test_a_share_of_a_gpu_has_the_pipes_and_the_memory_of_mps(
    client: LauncherClient, engine: EngineApi, image: str, mesh: str, tmp_path: Path
) -> None:
    """The container that the template makes, but for the GPU, which this engine may not have."""
    for name in ("pipes", "shm"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    settings = LauncherSettings(
        mesh=mesh, node="node-1", network=mesh, default_image=image, engine=engine.url,
        mps_pipe_dir=tmp_path / "pipes", mps_shm_dir=tmp_path / "shm",
    )  # fmt: skip
    uuid = "GPU-0a1b2c3d-0000-1111-2222-333344445555"
    replica = check_start(await client.request(gpu_uuids=[uuid], gpus=0.5), {})
    folders = folders_of(client.state_dir, replica)
    config = replica_container(replica, settings, folders, Surroundings(mps=True))
    config["HostConfig"]["DeviceRequests"] = []
    made = engine.call("POST", "containers/create", config)["Id"]
    engine.call("POST", f"containers/{made}/start")
    found = engine.call("GET", f"containers/{made}/json")["NetworkSettings"]["Networks"]
    address = f"{found[mesh]['IPAddress']}:8001"
    for path, there in (("/dev/shm/x", "shm/x"), ("/forebay/mps/x", "pipes/x")):
        assert await eventually(lambda path=path: obey(address, f"write {path}")) == "written"  # type: ignore[misc]
        assert (tmp_path / there).read_text() == "x"
    environment = obey(address, "read /proc/self/environ").split("\0")
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=50" in environment
