"""Uploads a model and declares a deployment: what the command line and functions share.

Failed calls raise grpc.aio.AioRpcError, for the caller to say in its own words.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

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
from services.wire.model_archive import pack
from services.wire.names import deployment_id

CALL_TIMEOUT_S = 15.0
UPLOAD_TIMEOUT_S = 3600.0
_UPDATE_ATTEMPTS = 3


class Told(Protocol):
    """Is told what is going on."""

    def __call__(self, message: str) -> None:
        """Something else is being done now."""

    def tick(self, message: str) -> None:
        """Something that changes many times a second."""


class Quiet:
    """Tells nobody."""

    def __call__(self, message: str) -> None:
        """Says nothing."""

    def tick(self, message: str) -> None:
        """Says nothing."""


class BusyDeploymentError(Exception):
    """Somebody else changes the deployment at the same time."""


async def provide_model(directory: Path, channel: grpc.aio.Channel, tell: Told) -> str:
    """Packs a model directory and uploads it unless the mesh has it; returns its digest.

    Raises:
        ModelArchiveError: if it cannot be packed.
        OSError: if a file of it cannot be read.
        grpc.aio.AioRpcError: if the autoscaler does not take it.
    """
    with tempfile.TemporaryFile() as archive:
        digest = await asyncio.to_thread(pack, directory, archive)
        size_bytes = archive.tell()
        models = model_service(channel)
        if not await _is_stored(models, digest):
            chunks = _chunks(archive, Model(digest=digest, size_bytes=size_bytes), tell)
            await models.UploadModel(chunks, timeout=UPLOAD_TIMEOUT_S)
    return digest


async def _is_stored(models: Any, digest: str) -> bool:
    try:
        await models.GetModel(GetModelRequest(digest=digest), timeout=UPLOAD_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


async def _chunks(archive: BinaryIO, model: Model, tell: Told) -> AsyncIterator[UploadModelRequest]:
    yield UploadModelRequest(model=model)
    archive.seek(0)
    total_mb = model.size_bytes / 1e6
    tell(f"uploading the model ({total_mb:.1f} MB)")
    sent_bytes = 0
    while chunk := await asyncio.to_thread(archive.read, MODEL_CHUNK_BYTES):
        yield UploadModelRequest(chunk=chunk)
        sent_bytes += len(chunk)
        tell.tick(f"uploading the model: {sent_bytes / 1e6:.1f} of {total_mb:.1f} MB")


async def declare(wanted: Deployment, channel: grpc.aio.Channel) -> tuple[Deployment, list[str]]:
    """Creates a deployment, or changes it to what is wanted.

    Returns:
        The deployment, and what was done: `created`, `unchanged`, or `updated` and the fields.

    Raises:
        BusyDeploymentError: if somebody else was faster each of three times.
        grpc.aio.AioRpcError: if the autoscaler refuses.
    """
    service = deployment_service(channel)
    for _ in range(_UPDATE_ATTEMPTS):
        try:
            current = await current_deployment(wanted.name, channel)
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
                raise
        else:
            return updated.deployment, ["updated", *changed]
    raise BusyDeploymentError(
        f"{wanted.name} is being changed by somebody else. Look at `forebay status` and deploy "
        "again."
    )


async def current_deployment(name: str, channel: grpc.aio.Channel) -> Deployment | None:
    """The deployment of a resource name; None if there is none.

    Raises:
        grpc.aio.AioRpcError: if the autoscaler does not answer.
    """
    service = deployment_service(channel)
    try:
        answer = await service.GetDeployment(
            GetDeploymentRequest(name=name), timeout=CALL_TIMEOUT_S
        )
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
        "volumes": {volume.name: volume.read_only for volume in deployment.volumes},
        "image": deployment.image,
    }
