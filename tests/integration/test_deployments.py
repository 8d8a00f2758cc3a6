"""Deployments and models as the autoscaler keeps them in a real nats-server."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import nats.errors
import nats.js.errors
import pytest

from forebay.v1.deployment_pb2 import ListDeploymentsRequest
from forebay.v1.model_pb2 import GetModelRequest, Model
from services.wire import model_archive, streams
from services.wire.nats_link import NatsLink
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, archive, control_plane, linked, parts, refusal
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


@pytest.fixture
async def link(mesh: ControlPlane) -> AsyncIterator[NatsLink]:
    async with linked(mesh.nats.url) as made:
        yield made


async def test_consumers_and_deployments_survive_a_crash_of_nats(
    mesh: ControlPlane, link: NatsLink
) -> None:
    node = await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)
    await asyncio.to_thread(mesh.nats.restart)

    async def back() -> bool:
        try:
            return await streams.request_consumer_info(link.jetstream, "add") is not None
        except (nats.errors.Error, TimeoutError):
            return False

    async def known() -> bool:
        try:
            return (await mesh.get("add")).replicas == 1
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    await eventually(back)
    await eventually(known)

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


async def test_deleting_removes_replicas_consumer_and_status(
    mesh: ControlPlane, link: NatsLink
) -> None:
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

    async def empty() -> bool:
        try:
            await bucket.keys()
        except nats.js.errors.NoKeysError:
            return True
        return False

    await eventually(empty)
    await mesh.create("add", replicas=1)
    await mesh.ready("add", 1)


async def test_refuses_what_is_not_legal_by_field_value_and_range(mesh: ControlPlane) -> None:
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


async def test_an_update_with_a_stale_etag_is_aborted(mesh: ControlPlane) -> None:
    made = await mesh.create("add")
    changed = await mesh.update("add", "replicas", replicas=1, etag=made.etag)
    assert changed.etag != made.etag
    code, _ = await refusal(mesh.update("add", "replicas", replicas=2, etag=made.etag))
    assert code == grpc.StatusCode.ABORTED
    same = await mesh.update("add", "replicas", replicas=1, etag=changed.etag)
    assert same.etag == changed.etag


async def test_concurrent_updates_of_different_fields_all_count(mesh: ControlPlane) -> None:
    await mesh.create("add")
    await asyncio.gather(
        mesh.update("add", "replicas", replicas=3),
        mesh.update("add", "max_queued_requests", max_queued_requests=7),
        mesh.update("add", "max_ongoing_requests", max_ongoing_requests=5),
    )
    made = await mesh.get("add")
    assert (made.replicas, made.max_queued_requests, made.max_ongoing_requests) == (3, 7, 5)


async def test_lists_pages_by_name(mesh: ControlPlane) -> None:
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


async def test_an_upload_is_checked_before_it_is_kept(mesh: ControlPlane, link: NatsLink) -> None:
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


async def test_refuses_a_model_directory_that_triton_cannot_take_by_line(
    mesh: ControlPlane,
) -> None:
    directory = mesh.tmp_path / "bad"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text('backend: "python"\nmax_batch: 8\n')
    out = io.BytesIO()
    digest = model_archive.pack(directory, out)
    model = Model(digest=digest, size_bytes=len(out.getvalue()))
    code, details = await refusal(mesh.models.UploadModel(parts(model, out.getvalue())))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "config.pbtxt, line 2, column 1" in details


async def test_clears_away_what_an_interrupted_deletion_left(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nats = stack.enter_context(NatsServer(tmp_path / "nats"))
        link = await stack.enter_async_context(linked(nats.url))
        await streams.ensure_request_consumer(link.jetstream, "deleted")
        mesh = ControlPlane(nats, tmp_path, stack)
        await mesh.start()
        async with mesh.autoscaling():

            async def cleared() -> bool:
                return await streams.request_consumer_info(link.jetstream, "deleted") is None

            await eventually(cleared)
