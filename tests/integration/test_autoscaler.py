"""The autoscaler with a real nats-server and a real metrics; only Triton is missing."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.autoscaler_pb2 import WatchAssignmentsRequest
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
from forebay.v1.model_pb2 import GetModelRequest, Model, UploadModelRequest
from forebay.v1.model_pb2_grpc import ModelServiceStub
from forebay.v1.node_pb2 import ReplicaStatus
from services.autoscaler.main import serve as serve_autoscaler
from services.autoscaler.settings import AutoscalerSettings
from services.metrics.main import serve as serve_metrics
from services.metrics.settings import MetricsSettings
from services.wire import model_archive, streams
from services.wire.channels import open_channel
from services.wire.nats_link import NatsLink
from tests.support.agent import Agent, ready
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.serving import serving

LOOPBACK = "127.0.0.1:0"


def archive(tmp_path: Path, text: str = "pass") -> tuple[str, bytes]:
    directory = tmp_path / "model"
    (directory / "1").mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_text('backend: "python"\n')
    (directory / "1" / "model.py").write_text(text)
    out = io.BytesIO()
    return model_archive.pack(directory, out), out.getvalue()


class Mesh:
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
                node_grace_s=0.5,
            )
        )
        self.metrics = addresses["metrics"]

    @asynccontextmanager
    async def autoscaling(self, metrics: str = "") -> AsyncIterator[None]:
        async with serving(
            serve_autoscaler,
            AutoscalerSettings,
            self.tmp_path / "autoscaler.json",
            nats_url=self.nats.url,
            listen=LOOPBACK,
            metrics=metrics or self.metrics,
            node_grace_s=1,
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


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def mesh(nats: NatsServer, tmp_path: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        made = Mesh(nats, tmp_path, stack)
        await made.start()
        await stack.enter_async_context(made.autoscaling())
        yield made


@pytest.fixture
async def link(nats: NatsServer) -> AsyncIterator[NatsLink]:
    made = NatsLink("test", nats.url)
    stopping = asyncio.Event()
    task = asyncio.ensure_future(made.run(stopping))
    await eventually(lambda: made.connected)
    yield made
    stopping.set()
    await task
    await made.close()


async def test_places_the_replicas_of_a_new_deployment_on_a_node(mesh: Mesh, link: NatsLink):
    node = await mesh.agent(Agent("node-a"))
    made = await mesh.create("add", replicas=2)
    assert made.generation == 1
    assert made.max_ongoing_requests == 8
    await mesh.ready("add", 2)
    assert [a.deployment for a in node.assignments] == ["deployments/add"] * 2
    assert {a.model_digest for a in node.assignments} == {made.model_digest}
    assert node.told[-1].epoch == 1
    assert await streams.request_consumer_info(link.jetstream, "add") is not None


async def test_scales_without_a_new_generation(mesh: Mesh):
    node = await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    first = node.assignments[0].replica_id
    assert (await mesh.update("add", "replicas", replicas=3)).generation == 1
    await mesh.ready("add", 3)
    assert first in {a.replica_id for a in node.assignments}
    await mesh.update("add", "replicas", replicas=0)
    await eventually(lambda: node.assignments == [])


async def test_says_why_replicas_have_no_place(mesh: Mesh):
    await mesh.create("add", replicas=2)

    async def message() -> str:
        return (await mesh.get("add")).status.message

    await eventually(lambda: _contains(message, "there is no node yet"))
    await mesh.agent(Agent("node-a", slots=1))
    await eventually(lambda: _contains(message, "node-a: all 1 slots are taken"))
    await mesh.agent(Agent("node-b", slots=1))
    await mesh.ready("add", 2)


async def _contains(message: object, text: str) -> bool:
    return text in await message()  # type: ignore[operator]


async def test_says_why_a_replica_failed(mesh: Mesh):
    await mesh.agent(Agent("node-a", state_of=lambda _: ReplicaStatus.STATE_FAILED))
    await mesh.create("add", replicas=1)

    async def failed() -> bool:
        status = (await mesh.get("add")).status
        return status.failed_replica_count == 1 and "Triton said no" in status.message

    await eventually(failed)


async def test_replaces_replicas_one_by_one_on_a_new_generation(mesh: Mesh):
    node = await mesh.agent(Agent("node-a", slots=3))
    await mesh.create("add", replicas=2)
    await mesh.ready("add", 2)
    changed = await mesh.update("add", model_digest=await mesh.upload("other"))
    assert changed.generation == 2
    await mesh.ready("add", 2)
    seen = [sorted(a.generation for a in told.assignments) for told in node.told]
    assert seen[-1] == [2, 2]
    replacing = seen[seen.index([1, 1]) :]
    assert all(len(generations) >= 2 for generations in replacing)
    assert max(len(generations) for generations in replacing) == 3


async def test_a_new_generation_that_fails_does_not_take_the_old_one_down(mesh: Mesh):
    def state_of(assignment) -> ReplicaStatus.State:
        good = assignment.generation == 1
        return ReplicaStatus.STATE_READY if good else ReplicaStatus.STATE_FAILED

    node = await mesh.agent(Agent("node-a", slots=3, state_of=state_of))
    await mesh.create("add", replicas=2)
    await mesh.ready("add", 2)
    await mesh.update("add", model_digest=await mesh.upload("bad"))

    async def failed() -> bool:
        status = (await mesh.get("add")).status
        return status.failed_replica_count == 1 and status.ready_replica_count == 2

    await eventually(failed)
    assert node.generations == [1, 1, 2]
    node.state_of = ready
    await mesh.update("add", model_digest=await mesh.upload("repaired"))
    await mesh.ready("add", 2)
    await eventually(lambda: node.generations == [3, 3])


async def test_makes_room_where_there_is_none_for_a_new_replica(mesh: Mesh):
    node = await mesh.agent(Agent("node-a", slots=1))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    node.slow_to_stop = True
    await mesh.update("add", "max_ongoing_requests", max_ongoing_requests=2)
    await eventually(lambda: node.assignments == [])
    told = len(node.told)
    # While the old replica drains, its slot is taken.
    await eventually(lambda: _drains(mesh))
    assert len(node.told) == told
    node.slow_to_stop = False
    await mesh.ready("add", 1)
    assert node.generations == [2]


async def _drains(mesh: Mesh) -> bool:
    status = (await mesh.get("add")).status
    return status.draining_replica_count == 1 and "all 1 slots are taken" in status.message


async def test_moves_replicas_when_their_node_is_gone_longer_than_the_grace_period(mesh: Mesh):
    async with Agent("node-a").running(mesh.metrics, mesh.autoscaler) as first:
        await mesh.create("add", replicas=2)
        await mesh.ready("add", 2)
        assert len(first.assignments) == 2
        second = await mesh.agent(Agent("node-b"))
    await eventually(lambda: len(second.assignments) == 2, timeout_s=10)
    await mesh.ready("add", 2)


async def test_moves_replicas_away_from_a_node_that_drains(mesh: Mesh):
    first = await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    second = await mesh.agent(Agent("node-b"))
    first.draining = True
    await eventually(lambda: len(second.assignments) == 1 and not first.assignments)


async def test_a_restart_of_the_autoscaler_changes_nothing(nats: NatsServer, tmp_path: Path):
    async with AsyncExitStack() as stack:
        mesh = Mesh(nats, tmp_path, stack)
        await mesh.start()
        async with mesh.autoscaling():
            async with Agent("node-a").running(mesh.metrics, mesh.autoscaler) as node:
                await mesh.create("add", replicas=2)
                await mesh.ready("add", 2)
                before = node.told[-1]
        # Metrics cannot be reached, so the mesh is not seen at all.
        async with mesh.autoscaling(metrics="127.0.0.1:1"):
            await mesh.update("add", "replicas", replicas=0)

            async def blind() -> bool:
                return "metrics does not answer" in (await mesh.get("add")).status.message

            await eventually(blind)
            request = WatchAssignmentsRequest(node="nodes/node-a")
            call = mesh.watches.WatchAssignments(request)
            told = await call.read()
            call.cancel()
            assert told.assignments == before.assignments
            assert told.revision == before.revision
            assert told.epoch == before.epoch + 1


async def test_consumers_and_deployments_survive_a_crash_of_nats(mesh: Mesh, link: NatsLink):
    node = await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    mesh.nats.restart()

    async def back() -> bool:
        if not link.connected:
            return False
        return await streams.request_consumer_info(link.jetstream, "add") is not None

    await eventually(back)
    assert (await mesh.get("add")).replicas == 1

    async def updated() -> bool:
        try:
            await mesh.update("add", "replicas", replicas=2)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    await eventually(updated)
    await eventually(lambda: len(node.assignments) == 2)


async def test_deleting_removes_replicas_consumer_and_status(mesh: Mesh, link: NatsLink):
    node = await mesh.agent(Agent("node-a"))
    made = await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    assert (await refusal(mesh.delete("add", etag="zz")))[0] == grpc.StatusCode.ABORTED
    await mesh.delete("add", etag=made.etag, validate_only=True)
    await mesh.delete("add", etag=made.etag)
    assert (await refusal(mesh.get("add")))[0] == grpc.StatusCode.NOT_FOUND
    assert await streams.request_consumer_info(link.jetstream, "add") is None
    await eventually(lambda: node.assignments == [])
    bucket = await streams.deployments_bucket(link.jetstream)
    with pytest.raises(Exception, match="no keys"):
        await bucket.keys()
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)


async def test_refuses_what_is_not_legal_by_field_value_and_range(mesh: Mesh):
    digest = await mesh.upload()
    for fields, complaint in [
        ({"model_digest": "sha256:1"}, "model_digest = 'sha256:1'"),
        ({"replicas": -1}, "replicas = -1: it must be 0 to 1000"),
        ({"max_ongoing_requests": 2000}, "max_ongoing_requests = 2000: it must be 1 to 1024"),
    ]:
        code, details = await refusal(mesh.create("add", **{"model_digest": digest, **fields}))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert complaint in details
    for bad in ["", "Add", "a.b", "a*", "a b", "a/b", "-a", "ä", "a" * 10_000]:
        code, details = await refusal(mesh.create(bad, model_digest=digest))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("deployment_id: ")
        assert len(details) < 300
    code, details = await refusal(mesh.create("add", model_digest="sha256:" + "0" * 64))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    await mesh.create("add")
    assert (await refusal(mesh.create("add")))[0] == grpc.StatusCode.ALREADY_EXISTS
    code, details = await refusal(mesh.update("add", "status", replicas=1))
    assert (code, details) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "update_mask: status is set by the autoscaler",
    )


async def test_an_update_with_a_stale_etag_is_aborted(mesh: Mesh):
    made = await mesh.create("add")
    changed = await mesh.update("add", "replicas", replicas=1, etag=made.etag)
    assert changed.etag != made.etag
    code, _ = await refusal(mesh.update("add", "replicas", replicas=2, etag=made.etag))
    assert code == grpc.StatusCode.ABORTED
    same = await mesh.update("add", "replicas", replicas=1, etag=changed.etag)
    assert same.etag == changed.etag


async def test_concurrent_updates_of_different_fields_all_count(mesh: Mesh):
    await mesh.create("add")
    await asyncio.gather(
        mesh.update("add", "replicas", replicas=3),
        mesh.update("add", "max_queued_requests", max_queued_requests=7),
        mesh.update("add", "max_ongoing_requests", max_ongoing_requests=5),
    )
    made = await mesh.get("add")
    assert (made.replicas, made.max_queued_requests, made.max_ongoing_requests) == (3, 7, 5)


async def test_lists_pages_by_name(mesh: Mesh):
    for name in ["c", "a", "b"]:
        await mesh.create(name)
    first = await mesh.deployments.ListDeployments(ListDeploymentsRequest(page_size=2))
    assert [d.name for d in first.deployments] == ["deployments/a", "deployments/b"]
    request = ListDeploymentsRequest(page_size=2, page_token=first.next_page_token)
    second = await mesh.deployments.ListDeployments(request)
    assert [d.name for d in second.deployments] == ["deployments/c"]
    assert second.next_page_token == ""
    for token in ["x", "ü", "YWJj"]:
        request = ListDeploymentsRequest(page_token=token)
        code, details = await refusal(mesh.deployments.ListDeployments(request))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "page_token" in details


async def test_an_upload_is_checked_before_it_is_kept(mesh: Mesh, link: NatsLink):
    digest, content = archive(mesh.tmp_path)
    model = Model(digest=digest, size_bytes=len(content))
    for announced, sent, complaint in [
        (model, content[:-1], "bytes announced were sent"),
        (model, content + b"x", "bytes announced were sent"),
        (model, b"x" + content[1:], "the archive is damaged"),
        (Model(digest="sha256:1", size_bytes=1), b"", "64 hexadecimal digits"),
        (Model(digest=digest, size_bytes=-1), b"", "size_bytes = -1"),
    ]:
        code, details = await refusal(mesh.models.UploadModel(parts(announced, sent)))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert complaint in details
        code, _ = await refusal(mesh.models.GetModel(GetModelRequest(digest=digest)))
        assert code == grpc.StatusCode.NOT_FOUND
    for _ in range(2):
        stored = await mesh.models.UploadModel(parts(model, content))
        assert stored.model == model
    found = await mesh.models.GetModel(GetModelRequest(digest=digest))
    assert found.model == model
    store = await streams.models_store(link.jetstream)
    kept = await store.get(streams.model_object_name(digest))
    assert kept.data == content


async def test_refuses_a_model_directory_that_triton_cannot_take_by_line(mesh: Mesh):
    directory = mesh.tmp_path / "bad"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text('backend: "python"\nmax_batch: 8\n')
    out = io.BytesIO()
    digest = model_archive.pack(directory, out)
    model = Model(digest=digest, size_bytes=len(out.getvalue()))
    code, details = await refusal(mesh.models.UploadModel(parts(model, out.getvalue())))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "config.pbtxt, line 2, column 1" in details


async def test_places_fractions_of_gpus_together_and_never_twice_on_one_share(mesh: Mesh):
    node = await mesh.agent(Agent("node-a", slots=0, gpus=("GPU-1", "GPU-2")))
    await mesh.create("half", replicas=3, resources={"gpus": 0.5})
    await mesh.ready("half", 3)
    held = sorted(a.gpu_uuids[0] for a in node.assignments)
    assert held == ["GPU-1", "GPU-1", "GPU-2"]
