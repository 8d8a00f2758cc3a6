"""`forebay deploy`: uploads the model, creates or updates the deployment, waits until it serves."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from forebay import addresses, deployment_file
from forebay.cli.failure import FAILED, USAGE, CliError, raise_for
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, Progress, count_of, print_json, progress, say, to_plain
from forebay.cli.rollout import until_ready
from forebay.cli.scaling_words import target_of
from forebay.deployment_file import DeploymentFile, DeploymentFileError
from forebay.stubs import deployment_service, model_service
from forebay.v1.deployment_pb2 import (
    Canary,
    CreateDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    UpdateDeploymentRequest,
)
from forebay.v1.model_pb2 import GetModelRequest, Model, UploadModelRequest
from services.wire.limits import MODEL_CHUNK_BYTES
from services.wire.model_archive import ModelArchiveError, pack
from services.wire.names import deployment_id

UPLOAD_TIMEOUT_S = 3600.0
_UPDATE_ATTEMPTS = 3


async def run(path: Path, where: Where, wait: bool, timeout_s: float, output: Output) -> None:
    """Deploys what a file declares.

    Raises:
        CliError: if it cannot be deployed or a replica of it fails.
    """
    try:
        file = deployment_file.load(path)
    except DeploymentFileError as error:
        raise CliError(str(error), USAGE) from error
    for note in file.notes:
        say(note)
    with progress(f"packing {file.model_directory}") as tell:
        async with link_to(addresses.AUTOSCALER, where) as autoscaler:
            deployment, change = await deploy(file, autoscaler, tell)
            say(_said(deployment, change))
            if wait:
                async with link_to(addresses.METRICS, where) as metrics:
                    deployment = await until_ready(
                        deployment,
                        autoscaler,
                        metrics,
                        timeout_s,
                        tell,
                        is_new=change == ["created"],
                    )
                say(_ended(deployment))
    if output is Output.JSON:
        print_json({"change": change[0], **to_plain(deployment)})


async def deploy(
    file: DeploymentFile, autoscaler: Link, tell: Progress
) -> tuple[Deployment, list[str]]:
    """Uploads the model and declares the deployment.

    Returns:
        The deployment, and what was done: `created`, `unchanged`, or `updated` and the fields.

    Raises:
        CliError: if it fails.
    """
    digest = await _provide_model(file, autoscaler, tell)
    tell(f"declaring {file.spec.name}")
    return await _declare(file.spec.to_proto(digest), autoscaler)


async def _provide_model(file: DeploymentFile, autoscaler: Link, tell: Progress) -> str:
    tell(f"packing {file.model_directory}")
    with tempfile.TemporaryFile() as archive:
        try:
            digest = await asyncio.to_thread(pack, file.model_directory, archive)
        except (ModelArchiveError, OSError) as error:
            raise CliError(str(error), USAGE) from error
        size_bytes = archive.tell()
        models = model_service(autoscaler.channel)
        if not await _is_stored(models, digest, autoscaler):
            chunks = _chunks(archive, Model(digest=digest, size_bytes=size_bytes), tell)
            await autoscaler.call(models.UploadModel, chunks, UPLOAD_TIMEOUT_S)
    return digest


async def _is_stored(models: Any, digest: str, autoscaler: Link) -> bool:
    try:
        await models.GetModel(GetModelRequest(digest=digest), timeout=UPLOAD_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise_for(error, autoscaler.service, autoscaler.address)
    return True


async def _chunks(
    archive: BinaryIO, model: Model, tell: Progress
) -> AsyncIterator[UploadModelRequest]:
    yield UploadModelRequest(model=model)
    archive.seek(0)
    total_mb = model.size_bytes / 1e6
    tell(f"uploading the model ({total_mb:.1f} MB)")
    sent_bytes = 0
    while chunk := await asyncio.to_thread(archive.read, MODEL_CHUNK_BYTES):
        yield UploadModelRequest(chunk=chunk)
        sent_bytes += len(chunk)
        tell.tick(f"uploading the model: {sent_bytes / 1e6:.1f} of {total_mb:.1f} MB")


async def _declare(wanted: Deployment, autoscaler: Link) -> tuple[Deployment, list[str]]:
    service = deployment_service(autoscaler.channel)
    for _ in range(_UPDATE_ATTEMPTS):
        try:
            current = await _current(service, wanted.name)
            if current is None:
                created = await service.CreateDeployment(
                    CreateDeploymentRequest(
                        deployment_id=deployment_id(wanted.name), deployment=wanted
                    )
                )
                return created.deployment, ["created"]
            changed = changed_fields(current, wanted)
            if not changed:
                return current, ["unchanged"]
            wanted.etag = current.etag
            updated = await service.UpdateDeployment(
                UpdateDeploymentRequest(deployment=wanted, update_mask=FieldMask(paths=changed))
            )
        except grpc.aio.AioRpcError as error:
            # Somebody else was faster: look again.
            if error.code() not in (grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS):
                raise_for(error, autoscaler.service, autoscaler.address)
        else:
            return updated.deployment, ["updated", *changed]
    raise CliError(
        f"{wanted.name} is being changed by somebody else. Look at `forebay status` and deploy "
        "again.",
        FAILED,
    )


async def _current(service: Any, name: str) -> Deployment | None:
    try:
        answer = await service.GetDeployment(GetDeploymentRequest(name=name))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    found: Deployment = answer.deployment
    return found


def changed_fields(current: Deployment, wanted: Deployment) -> list[str]:
    """Names of the fields in which two deployments differ, where unset equals its default."""
    before, after = _comparable(current), _comparable(wanted)
    if wanted.HasField("scaling"):
        # It is left out of account, and what it was is of use when scaling goes again.
        del after["replicas"]
    return [name for name in after if before[name] != after[name]]


def _comparable(deployment: Deployment) -> dict[str, object]:
    scaling = deployment.scaling if deployment.HasField("scaling") else None
    return {
        "model_digest": deployment.model_digest,
        "replicas": deployment.replicas,
        "scaling": scaling and scaling.SerializeToString(deterministic=True),
        "resources": deployment.resources.SerializeToString(deterministic=True),
        "placement": deployment.placement == Deployment.PLACEMENT_SPREAD,
        "environment": dict(deployment.environment),
        "max_ongoing_requests": deployment.max_ongoing_requests,
        "request_timeout": deployment.request_timeout.ToNanoseconds(),
        "max_queued_requests": deployment.max_queued_requests,
        "canary": deployment.canary.mode == Canary.MODE_OFF,
    }


def _ended(deployment: Deployment) -> str:
    name = deployment_id(deployment.name)
    target = target_of(deployment)
    ready = deployment.status.updated_replica_count
    if deployment.HasField("pinned_replicas"):
        held = f"pinned, until `forebay scale {name} --release`"
        return f"{name} is ready: {count_of(ready, 'replica')}, {held}"
    if not deployment.HasField("scaling"):
        return f"{name} is ready: {count_of(deployment.replicas, 'replica')}"
    if target == 0:
        return f"{name} is at zero replicas: the first request will start it"
    scaling = deployment.scaling
    bounds = f"{scaling.min_replicas} to {scaling.max_replicas} with the load"
    return f"{name} is ready: {count_of(ready, 'replica')}, {bounds}"


def _said(deployment: Deployment, change: list[str]) -> str:
    what, *fields = change
    detail = f" ({', '.join(fields)})" if fields else ""
    name = deployment_id(deployment.name)
    return f"{name} {what}{detail}: generation {deployment.generation}"
