"""The rest of the Open Inference Protocol, so that Triton's and KServe's clients work unchanged.

What speaks of one server's memory or disk makes no sense in front of many and is UNIMPLEMENTED with
a sentence.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import grpc.aio
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from services.router.directory import DeploymentDirectory
from services.wire import names, streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.triton_stubs import service_pb2 as triton
from services.wire.triton_stubs import service_pb2_grpc as triton_grpc

SERVICE = "inference.GRPCInferenceService"
MODEL_INFER = f"/{SERVICE}/ModelInfer"

STATISTICS_TIMEOUT_S = 0.5
DESCRIBED_WITHIN_S = 60.0
DESCRIBED_POLL_S = 0.1

_REFUSED = {
    "SystemSharedMemoryStatus": "shared memory does not reach across the mesh",
    "SystemSharedMemoryRegister": "shared memory does not reach across the mesh",
    "SystemSharedMemoryUnregister": "shared memory does not reach across the mesh",
    "CudaSharedMemoryStatus": "shared memory does not reach across the mesh",
    "CudaSharedMemoryRegister": "shared memory does not reach across the mesh",
    "CudaSharedMemoryUnregister": "shared memory does not reach across the mesh",
    "RepositoryModelLoad": "models are loaded by deploying them: `forebay deploy`",
    "RepositoryModelUnload": "models are unloaded by `forebay delete`",
    "TraceSetting": "traces are configured by the OTEL_* environment variables of each process",
    "LogSettings": "logs are configured by each process's log_level",
    "ModelStreamInfer": "streamed answers are not offered; call ModelInfer",
}


class OpenInferenceServicer(triton_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Everything of GRPCInferenceService but ModelInfer, which goes raw through the core."""

    def __init__(
        self,
        link: NatsLink,
        directory: DeploymentDirectory,
        version: str,
        is_serving: Callable[[], bool],
        wake: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Answers from the directory and from NATS.

        Args:
            link: to NATS.
            directory: the deployments.
            version: of this software.
            is_serving: whether requests are taken.
            wake: told of a deployment without a replica that somebody asks about.
        """
        self._wake = wake
        self._link = link
        self._directory = directory
        self._version = version
        self._is_serving = is_serving
        for method, reason in _REFUSED.items():
            setattr(self, method, _refuse(method, reason, streamed=method == "ModelStreamInfer"))

    async def ServerLive(
        self, request: triton.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> triton.ServerLiveResponse:
        """Whether the router runs."""
        return triton.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: triton.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> triton.ServerReadyResponse:
        """Whether the router takes requests."""
        return triton.ServerReadyResponse(ready=self._is_serving())

    async def ModelReady(
        self, request: triton.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> triton.ModelReadyResponse:
        """Whether a request is served: a replica is ready, or the first request starts one."""
        await self._check(request.name, context)
        ready = self._directory.status(request.name).ready_replica_count > 0
        return triton.ModelReadyResponse(ready=ready or self._sleeps(request.name))

    async def ServerMetadata(
        self, request: triton.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> triton.ServerMetadataResponse:
        """What clients look at to know what they talk to; they expect the name `triton`."""
        return triton.ServerMetadataResponse(
            name="triton",
            version=f"forebay-{self._version}",
            extensions=["model_repository", "model_configuration", "statistics", "parameters"],
        )

    async def ModelMetadata(
        self, request: triton.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> triton.ModelMetadataResponse:
        """The model's inputs and outputs, as its Triton last gave them."""
        return await self._described(
            request.name, "metadata", triton.ModelMetadataResponse, context
        )

    async def ModelConfig(
        self, request: triton.ModelConfigRequest, context: grpc.aio.ServicerContext
    ) -> triton.ModelConfigResponse:
        """The model's configuration, as its Triton last completed it."""
        return await self._described(request.name, "config", triton.ModelConfigResponse, context)

    async def ModelStatistics(
        self, request: triton.ModelStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> triton.ModelStatisticsResponse:
        """Triton's statistics, summed over the replicas: one entry per deployment."""
        wanted = [request.name] if request.name else self._directory.ids()
        for name in wanted:
            await self._check(name, context)
        answers = await asyncio.gather(*(self._statistics(name) for name in wanted))
        return triton.ModelStatisticsResponse(model_stats=answers)

    async def RepositoryIndex(
        self, request: triton.RepositoryIndexRequest, context: grpc.aio.ServicerContext
    ) -> triton.RepositoryIndexResponse:
        """All deployments, READY if one of their replicas is."""
        index = triton.RepositoryIndexResponse()
        for name in self._directory.ids():
            status = self._directory.status(name)
            ready = status.ready_replica_count > 0
            if ready or not request.ready:
                index.models.add(
                    name=name,
                    version="1",
                    state="READY" if ready else "UNAVAILABLE",
                    reason="" if ready else status.message,
                )
        return index

    async def _check(self, name: str, context: grpc.aio.ServicerContext) -> None:
        if await self._directory.find(name) is not None:
            return
        if not self._directory.known:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "the router does not know the deployments yet: it has not reached NATS",
            )
        await context.abort(
            grpc.StatusCode.NOT_FOUND,
            f"Request for unknown model: {names.quoted(name)} is not found",
        )

    async def _described(
        self, name: str, what: str, message_class: Any, context: grpc.aio.ServicerContext
    ) -> Any:
        await self._check(name, context)
        remaining_s = context.time_remaining()
        if remaining_s is None:
            remaining_s = DESCRIBED_WITHIN_S
        try:
            value = await self._description(f"{what}.{name}", name, remaining_s * 0.9)
        except (nats.errors.Error, TimeoutError):
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the queue (NATS) cannot be reached at the moment"
            )
        if value is None:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                f"no replica of {name} has been ready yet, so its {what} is not known: "
                + (self._directory.status(name).message or "it is starting"),
            )
        return message_class.FromString(value)

    async def _description(self, key: str, name: str, within_s: float) -> bytes | None:
        """What Triton said of a model; waited for only while a sleeping deployment wakes up."""
        bucket = await streams.metadata_bucket(self._link.jetstream)
        waits = self._wakes_up(name)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while True:
            try:
                return (await bucket.get(key)).value or b""
            except nats.js.errors.KeyNotFoundError:
                if not waits or loop.time() >= until_s:
                    return None
            # Its Triton alone knows the answer: whoever asks is about to send a request.
            self._wake(name)
            await asyncio.sleep(min(DESCRIBED_POLL_S, max(0.0, until_s - loop.time())))

    def _sleeps(self, name: str) -> bool:
        """Whether a deployment is at zero by decision, so that a request starts it."""
        status = self._directory.status(name)
        return self._wakes_up(name) and not status.target_replica_count

    def _wakes_up(self, name: str) -> bool:
        """Whether a deployment has no replica yet and a request would get it one."""
        deployment = self._directory.get(name)
        if deployment is None or not deployment.HasField("scaling"):
            return False
        if deployment.HasField("pinned_replicas") and not deployment.pinned_replicas:
            return False
        status = self._directory.status(name)
        return not status.ready_replica_count and not status.failed_replica_count

    async def _statistics(self, name: str) -> triton.ModelStatistics:
        expected = max(1, self._directory.status(name).ready_replica_count)
        answers: list[triton.ModelStatistics] = []
        enough = asyncio.Event()

        async def on_answer(msg: Msg) -> None:
            if msg.data:
                answers.extend(triton.ModelStatisticsResponse.FromString(msg.data).model_stats)
            if len(answers) >= expected or not msg.data:
                enough.set()

        client = self._link.client
        if client.is_connected:
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox, cb=on_answer)
            await client.publish(subjects.statistics(name), b"", reply=inbox)
            try:
                async with asyncio.timeout(STATISTICS_TIMEOUT_S):
                    await enough.wait()
            except TimeoutError:
                # What has come is what there is: a replica may be starting or gone.
                pass
            finally:
                await subscription.unsubscribe()
        return merge_statistics(name, answers)


def merge_statistics(name: str, parts: Iterable[triton.ModelStatistics]) -> triton.ModelStatistics:
    """One entry for several replicas: counts are summed, the last inference is the latest.

    Args:
        name: id of the deployment.
        parts: one entry per replica and version; batch and response statistics are left out.
    """
    merged = triton.ModelStatistics(name=name, version="1")
    for part in parts:
        merged.version = part.version or merged.version
        merged.last_inference = max(merged.last_inference, part.last_inference)
        merged.inference_count += part.inference_count
        merged.execution_count += part.execution_count
        for field, duration in part.inference_stats.ListFields():
            total = getattr(merged.inference_stats, field.name)
            total.count += duration.count
            total.ns += duration.ns
    return merged


def _refuse(method: str, reason: str, streamed: bool) -> Any:
    async def unary(request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method}: {reason}")

    async def stream(requests: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method}: {reason}")
        yield

    return stream if streamed else unary
