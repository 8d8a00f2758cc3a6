"""Metrics and autoscaler on a real nats-server, as the tests of both need them."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.deployment_pb2 import (
    CreateDeploymentRequest,
    DeleteDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    ListDeploymentsRequest,
    UpdateDeploymentRequest,
)
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from forebay.v1.model_pb2 import Model, UploadModelRequest
from forebay.v1.model_pb2_grpc import ModelServiceStub
from forebay.v1.node_pb2_grpc import NodeServiceStub
from services.autoscaler.main import serve as serve_autoscaler
from services.autoscaler.settings import AutoscalerSettings
from services.metrics.main import serve as serve_metrics
from services.metrics.settings import MetricsSettings
from services.wire import model_archive
from services.wire.channels import open_channel
from services.wire.nats_link import NatsLink
from tests.support.agent import Agent
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.replayed import check_decisions
from tests.support.serving import serving

LOOPBACK = "127.0.0.1:0"


def archive(tmp_path: Path, text: str = "pass") -> tuple[str, bytes]:
    directory = tmp_path / "model"
    (directory / "1").mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_text('backend: "python"\n')
    (directory / "1" / "model.py").write_text(text)
    out = io.BytesIO()
    return model_archive.pack(directory, out), out.getvalue()


class ControlPlane:
    """Metrics and autoscaler on one nats-server, with stubs to talk to them."""

    def __init__(self, nats: NatsServer, tmp_path: Path, stack: AsyncExitStack) -> None:
        self.nats = nats
        self.tmp_path = tmp_path
        self._stack = stack
        self.metrics = ""
        self.autoscaler = ""

    async def start(self) -> None:
        addresses = await self._stack.enter_async_context(
            serving(
                serve_metrics,
                MetricsSettings,
                self.tmp_path / "metrics.json",
                nats_url=self.nats.url,
                listen=LOOPBACK,
                http_listen=LOOPBACK,
                # Far more than the 0.1 s between reports, and little to wait for.
                node_grace_s=1.5,
            )
        )
        self.metrics, self.http = addresses["metrics"], addresses["metrics_http"]
        channel = await self._stack.enter_async_context(open_channel(self.metrics))
        self.snapshots = MetricsServiceStub(channel)
        self.nodes = NodeServiceStub(channel)

    @asynccontextmanager
    async def autoscaling(self, metrics: str = "", **settings: object) -> AsyncIterator[None]:
        async with serving(
            serve_autoscaler,
            AutoscalerSettings,
            self.tmp_path / "autoscaler.json",
            nats_url=self.nats.url,
            listen=LOOPBACK,
            metrics=metrics or self.metrics,
            node_grace_s=2,
            **settings,
        ) as addresses:
            self.autoscaler = addresses["autoscaler"]
            async with open_channel(self.autoscaler) as channel:
                self.deployments = DeploymentServiceStub(channel)
                self.models = ModelServiceStub(channel)
                self.watches = AutoscalerServiceStub(channel)
                await eventually(self._known)
                yield

    async def _known(self) -> bool:
        try:
            await self.deployments.ListDeployments(ListDeploymentsRequest())
        except grpc.aio.AioRpcError:
            return False
        return True

    async def agent(self, agent: Agent) -> Agent:
        await self._stack.enter_async_context(agent.running(self.metrics, self.autoscaler))
        return agent

    async def upload(self, text: str = "pass") -> str:
        digest, content = archive(self.tmp_path, text)
        await self.models.UploadModel(parts(Model(digest=digest, size_bytes=len(content)), content))
        return digest

    async def create(self, deployment_id: str, **fields: object) -> Deployment:
        fields.setdefault("model_digest", await self.upload())
        request = CreateDeploymentRequest(
            deployment_id=deployment_id,
            deployment=Deployment(**fields),
        )
        return (await self.deployments.CreateDeployment(request)).deployment

    async def get(self, deployment_id: str) -> Deployment:
        request = GetDeploymentRequest(name=f"deployments/{deployment_id}")
        return (await self.deployments.GetDeployment(request)).deployment

    async def update(self, deployment_id: str, *paths: str, **fields: object) -> Deployment:
        deployment = Deployment(name=f"deployments/{deployment_id}", **fields)
        mask = FieldMask(paths=paths) if paths else None
        request = UpdateDeploymentRequest(deployment=deployment, update_mask=mask)
        return (await self.deployments.UpdateDeployment(request)).deployment

    async def delete(self, deployment_id: str, **fields: object) -> None:
        name = f"deployments/{deployment_id}"
        await self.deployments.DeleteDeployment(DeleteDeploymentRequest(name=name, **fields))

    async def ready(self, deployment_id: str, count: int) -> Deployment:
        async def is_ready() -> Deployment | None:
            deployment = await self.get(deployment_id)
            status = deployment.status
            done = status.updated_replica_count == count and not status.message
            return deployment if done else None

        return await eventually(is_ready)


async def parts(model: Model, content: bytes) -> AsyncIterator[UploadModelRequest]:
    yield UploadModelRequest(model=model)
    for start in range(0, len(content), 4096):
        yield UploadModelRequest(chunk=content[start : start + 4096])


async def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


@asynccontextmanager
async def control_plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """nats-server, metrics and autoscaler, started and stopped."""
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            made = ControlPlane(nats, tmp_path, stack)
            await made.start()
            await stack.enter_async_context(made.autoscaling())
            yield made
            await asyncio.to_thread(check_decisions, made.autoscaler)


@asynccontextmanager
async def linked(url: str, credentials_file: Path | None = None) -> AsyncIterator[NatsLink]:
    """A connection of the test's own to nats-server."""
    made = NatsLink("test", url, credentials_file)
    stopping = asyncio.Event()
    task = asyncio.ensure_future(made.run(stopping))
    try:
        await eventually(lambda: made.connected)
        yield made
    finally:
        stopping.set()
        await task
        await made.close()
