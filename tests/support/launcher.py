"""A launcher inside the test's own process, on a real engine, and a client of it."""

import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from forebay.v1 import launcher_pb2 as pb
from forebay.v1.launcher_pb2_grpc import LauncherServiceStub
from services.launcher.main import serve
from services.launcher.settings import LauncherSettings
from tests.support.docker_engine import EngineApi
from tests.support.serving import serving

KEY = "k" * 32
_numbers = itertools.count(1)


def new_mesh() -> str:
    """A name for a mesh that no other test has, nor another run of it."""
    return f"forebay-test-{os.getpid()}-{next(_numbers)}"


class LauncherClient:
    """What an agent does: it writes a replica's files and says names.

    Attributes:
        stub: of the service.
        state_dir: the node's.
        address: where the launcher listens.
    """

    def __init__(
        self, channel: grpc.aio.Channel, state_dir: Path, default_image: str, address: str
    ) -> None:
        self.address = address
        self.stub: LauncherServiceStub = LauncherServiceStub(channel)
        self.state_dir = state_dir
        self._default_image = default_image

    async def image_id(self, image: str = "") -> str:
        """Prepares an image and returns its id."""
        *_, last = [r async for r in self.stub.PrepareImage(pb.PrepareImageRequest(image=image))]
        return str(last.image_id)

    async def request(self, deployment: str = "iris", **fields: Any) -> pb.StartReplicaRequest:
        """A request for a new replica, whose files are there."""
        replica_id = f"{deployment}-{secrets.token_hex(4)}"
        (self.state_dir / "replicas" / replica_id / "repository").mkdir(parents=True)
        (self.state_dir / "models" / "model-1").mkdir(parents=True, exist_ok=True)
        (self.state_dir / "models" / "model-1" / "model.py").write_text("# a model\n")
        given = {
            "replica_id": replica_id,
            "deployment_id": deployment,
            "image_id": fields.pop("image_id", None) or await self.image_id(),
            "model": "model-1",
            "access_key": KEY,
            "memory_bytes": 64 * 1024**2,
        }
        return pb.StartReplicaRequest(**{**given, **fields})

    async def start(self, **fields: Any) -> pb.ReplicaContainer:
        """Starts a new replica."""
        response = await self.stub.StartReplica(await self.request(**fields))
        container: pb.ReplicaContainer = response.container
        return container

    async def stop(self, replica_id: str, grace_s: float | None = None) -> None:
        """Stops a replica."""
        request = pb.StopReplicaRequest(replica_id=replica_id)
        if grace_s is not None:
            request.grace_period.FromMilliseconds(round(grace_s * 1000))
        await self.stub.StopReplica(request)

    async def listed(self) -> dict[str, pb.ReplicaContainer]:
        """The containers by replica."""
        response = await self.stub.ListReplicas(pb.ListReplicasRequest())
        return {container.replica_id: container for container in response.containers}

    def watch(self, replica_id: str) -> Any:
        """A call that watches a replica."""
        return self.stub.WatchReplica(pb.WatchReplicaRequest(replica_id=replica_id))


@asynccontextmanager
async def launcher(
    engine: EngineApi,
    directory: Path,
    image: str,
    mesh: str,
    /,
    *,
    keep: bool = False,
    **settings: Any,
) -> AsyncIterator[LauncherClient]:
    """A launcher with a network of its own; its containers and its network are removed at the end.

    Args:
        engine: what the test may do to the engine.
        directory: of the node.
        image: the default one.
        mesh: name of the mesh.
        keep: leaves containers and network as they are, for the next launcher.
        settings: what else differs from the defaults.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Short: pytest's own folders are too deep for a socket.
    short = Path(tempfile.mkdtemp(prefix="fl"))
    given = {
        "mesh": mesh,
        "node": "node-1",
        "state_dir": directory / "state",
        "socket": short / "l" / "l.sock",
        "engine": engine.url,
        "default_image": image,
        "network": mesh,
        **settings,
    }
    try:
        async with serving(serve, LauncherSettings, directory / "ready.json", **given) as ready:
            async with grpc.aio.insecure_channel(ready["launcher"]) as channel:
                yield LauncherClient(channel, directory / "state", image, ready["launcher"])
    finally:
        shutil.rmtree(short)
        if not keep and engine.answers():
            engine.remove_all(f"io.forebay.mesh={mesh}")
            engine.remove_network(str(given["network"]))
