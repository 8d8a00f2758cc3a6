"""LauncherService: thin transport. Every request is checked before anything else happens."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import grpc
import grpc.aio
import structlog

from forebay.v1 import launcher_pb2 as pb
from forebay.v1.launcher_pb2_grpc import LauncherServiceServicer
from services.launcher import logs, request_check
from services.launcher.engine import Engine
from services.launcher.environments import Environments
from services.launcher.images import Images
from services.launcher.readiness import Readiness
from services.launcher.refusal import Kind, RefusedError, invalid
from services.launcher.replicas import Replicas
from services.launcher.settings import LauncherSettings

log = structlog.get_logger()

_NS = 1_000_000_000


class LauncherService(LauncherServiceServicer):
    """Serves the agent of one node."""

    def __init__(
        self,
        settings: LauncherSettings,
        engine: Engine,
        readiness: Readiness,
        images: Images,
        environments: Environments,
        replicas: Replicas,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._readiness = readiness
        self._images = images
        self._environments = environments
        self._replicas = replicas
        self._volumes = settings.offered_volumes

    async def GetLauncher(
        self, request: pb.GetLauncherRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetLauncherResponse:
        """Returns what the launcher can do now."""
        version, message = await self._readiness.look()
        return pb.GetLauncherResponse(
            node=self._settings.node,
            usable=not message,
            message=message,
            default_image=self._settings.default_image,
            engine_version=version,
        )

    async def PrepareImage(
        self, request: pb.PrepareImageRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.PrepareImageResponse]:
        """Makes sure of an image."""
        async with _statuses(context, "PrepareImage"):
            async with aclosing(self._images.prepare(request.image)) as steps:
                async for progress, image_id in steps:
                    yield pb.PrepareImageResponse(progress=progress, image_id=image_id)

    async def PrepareEnvironment(
        self, request: pb.PrepareEnvironmentRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.PrepareEnvironmentResponse]:
        """Builds the Python environment of a requirements.txt inside an image."""
        async with _statuses(context, "PrepareEnvironment"):
            image_id = request_check.check_image_id(request.image_id)
            wanted = request_check.check_requirements(request.requirements)
            async with aclosing(self._environments.prepare(image_id, wanted)) as steps:
                async for progress, environment_id in steps:
                    yield pb.PrepareEnvironmentResponse(
                        progress=progress, environment_id=environment_id
                    )

    async def StartReplica(
        self, request: pb.StartReplicaRequest, context: grpc.aio.ServicerContext
    ) -> pb.StartReplicaResponse:
        """Creates and starts the container of a replica."""
        response = pb.StartReplicaResponse()
        async with _statuses(context, "StartReplica"):
            replica = request_check.check_start(
                request, self._volumes, self._settings.max_memory_bytes
            )
            response.container.CopyFrom(await self._replicas.start(replica))
        return response

    async def ListReplicas(
        self, request: pb.ListReplicasRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListReplicasResponse:
        """Lists the containers of this node's replicas."""
        response = pb.ListReplicasResponse()
        async with _statuses(context, "ListReplicas"):
            response.containers.extend(await self._replicas.list_all())
        return response

    async def WatchReplica(
        self, request: pb.WatchReplicaRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchReplicaResponse]:
        """Streams a replica's container."""
        async with _statuses(context, "WatchReplica"):
            replica_id = request_check.check_replica_id(request.replica_id)
            async with aclosing(self._replicas.watch(replica_id)) as looks:
                async for container in looks:
                    yield pb.WatchReplicaResponse(container=container)

    async def FollowReplicaLog(
        self, request: pb.FollowReplicaLogRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.FollowReplicaLogResponse]:
        """Streams what a replica's container writes to its log."""
        async with _statuses(context, "FollowReplicaLog"):
            replica_id = request_check.check_replica_id(request.replica_id)
            after_ns = 0
            if request.HasField("after_time"):
                after_ns = request.after_time.seconds * _NS + request.after_time.nanos
                if after_ns < 0:
                    raise invalid(f"after_time = {request.after_time.seconds} s: write 0 or more")
            texts = logs.follow(self._engine, self._replicas, replica_id, after_ns)
            async with aclosing(texts):
                async for text in texts:
                    response = pb.FollowReplicaLogResponse(text=text.text)
                    response.written_time.FromNanoseconds(text.written_ns)
                    yield response

    async def StopReplica(
        self, request: pb.StopReplicaRequest, context: grpc.aio.ServicerContext
    ) -> pb.StopReplicaResponse:
        """Stops and removes a replica's container."""
        async with _statuses(context, "StopReplica"):
            replica_id = request_check.check_replica_id(request.replica_id)
            await self._replicas.stop(replica_id, request_check.grace_s(request))
        return pb.StopReplicaResponse()


@asynccontextmanager
async def _statuses(context: grpc.aio.ServicerContext, method: str) -> AsyncIterator[None]:
    try:
        yield
    except RefusedError as error:
        # That the engine is away is said once elsewhere; the agent asks again every second.
        say = log.debug if error.kind == Kind.UNAVAILABLE else log.warning
        say("refused", method=method, kind=error.kind, reason=error.message)
        await context.abort(grpc.StatusCode[error.kind], error.message)
