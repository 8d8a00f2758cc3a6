"""The way to the launcher: every call bounded in time, every failure one of two kinds.

Either nothing can be done now (`RuntimeAwayError`: the launcher or its engine does not answer), or
the launcher refuses (`StartRefusedError`).
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from forebay.v1.launcher_pb2 import (
    FollowReplicaLogRequest,
    FollowReplicaLogResponse,
    GetLauncherRequest,
    GetLauncherResponse,
    ListReplicasRequest,
    PrepareEnvironmentRequest,
    PrepareImageRequest,
    ReplicaContainer,
    StartReplicaRequest,
    StopReplicaRequest,
    WatchReplicaRequest,
)
from forebay.v1.launcher_pb2_grpc import LauncherServiceStub
from services.node_agent.runtime import RuntimeAwayError, StartRefusedError
from services.wire.channels import open_channel

ASK_TIMEOUT_S = 5.0
START_TIMEOUT_S = 60.0
STOP_MARGIN_S = 15.0
"""What the engine gets to kill and remove a container, beside the grace its Triton gets."""

PULL_TIMEOUT_S = 2 * 3600.0
BUILD_TIMEOUT_S = 1800.0
MAX_SOCKET_PATH_BYTES = 107
"""unix(7): the length of sun_path, with its zero at the end."""

_AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}

Say = Callable[[str], None]


class LauncherLink:
    """Calls of one launcher."""

    def __init__(self, socket: Path) -> None:
        """Connects with the first call.

        Args:
            socket: of the launcher.

        Raises:
            OSError: if its path is too long for a socket.
        """
        path = str(socket.absolute())
        if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
            raise OSError(
                f"launcher_socket = {path}: a socket's path has at most {MAX_SOCKET_PATH_BYTES} "
                "bytes; name a shorter one for the launcher and the agent"
            )
        self.socket = path
        self._channel = open_channel(f"unix:{path}")
        self._stub = LauncherServiceStub(self._channel)

    async def get(self, timeout_s: float) -> GetLauncherResponse:
        """What the launcher can do now."""
        response: GetLauncherResponse = await self._call(
            self._stub.GetLauncher, GetLauncherRequest(), timeout_s
        )
        return response

    async def prepare_image(self, image: str, say: Say) -> str:
        """Makes sure of an image, empty for the default one; returns its id."""
        call = self._stub.PrepareImage(PrepareImageRequest(image=image), timeout=PULL_TIMEOUT_S)
        return await self._followed(call, "image_id", say)

    async def prepare_environment(self, image_id: str, requirements: bytes, say: Say) -> str:
        """Makes sure of a Python environment; returns its id."""
        request = PrepareEnvironmentRequest(image_id=image_id, requirements=requirements)
        call = self._stub.PrepareEnvironment(request, timeout=BUILD_TIMEOUT_S)
        return await self._followed(call, "environment_id", say)

    async def start(self, request: StartReplicaRequest) -> ReplicaContainer:
        """Starts a replica's container."""
        response = await self._call(self._stub.StartReplica, request, START_TIMEOUT_S)
        container: ReplicaContainer = response.container
        return container

    async def list(self) -> dict[str, ReplicaContainer]:
        """The containers of this node by replica."""
        response = await self._call(self._stub.ListReplicas, ListReplicasRequest(), ASK_TIMEOUT_S)
        return {container.replica_id: container for container in response.containers}

    async def stop(self, replica_id: str, grace_s: float) -> None:
        """Stops and removes a replica's container; fine if there is none."""
        grace = Duration()
        grace.FromMilliseconds(int(grace_s * 1000))
        request = StopReplicaRequest(replica_id=replica_id, grace_period=grace if grace_s else None)
        await self._call(self._stub.StopReplica, request, grace_s + STOP_MARGIN_S)

    async def watch(self, replica_id: str) -> AsyncGenerator[ReplicaContainer, None]:
        """A replica's container now and after every change. Close it with `aclosing`."""
        call = self._stub.WatchReplica(WatchReplicaRequest(replica_id=replica_id))
        async with aclosing(_responses(call)) as responses:
            async for response in responses:
                yield response.container

    async def follow_log(
        self, replica_id: str, after_time: Timestamp | None
    ) -> AsyncGenerator[FollowReplicaLogResponse, None]:
        """What a replica's container writes after an instant. Close it with `aclosing`."""
        request = FollowReplicaLogRequest(replica_id=replica_id, after_time=after_time)
        async with aclosing(_responses(self._stub.FollowReplicaLog(request))) as responses:
            async for response in responses:
                yield response

    async def close(self) -> None:
        """Closes the connection; calls under way fail."""
        await self._channel.close()

    async def _call(self, method: Callable[..., Any], request: object, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error

    async def _followed(self, call: Any, result: str, say: Say) -> str:
        found = ""
        async with aclosing(_responses(call)) as responses:
            async for response in responses:
                if response.progress:
                    say(response.progress)
                found = getattr(response, result) or found
        if not found:
            raise RuntimeAwayError("the launcher broke off; it is asked again")
        return found


async def _responses(call: Any) -> AsyncGenerator[Any, None]:
    """The responses of a stream; the call is ended with the generator."""
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise _told(error) from error
    finally:
        # grpcio leaves an abandoned stream open.
        call.cancel()


def _told(error: grpc.aio.AioRpcError) -> RuntimeAwayError | StartRefusedError:
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = "the launcher did not answer in time"
    if error.code() in _AWAY:
        return RuntimeAwayError(details)
    return StartRefusedError(details)
