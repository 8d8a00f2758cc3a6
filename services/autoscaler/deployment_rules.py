"""What a deployment may be: legal values, defaults, field masks, generations. Pure."""

import math

from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.deployment_pb2 import Canary, Deployment
from services.wire import model_archive
from services.wire.names import quoted
from services.wire.status import invalid_argument

DEFAULT_MAX_ONGOING_REQUESTS = 8
DEFAULT_MAX_QUEUED_REQUESTS = 1000
DEFAULT_REQUEST_TIMEOUT_S = 60

MAX_REPLICAS = 1000
MAX_GPUS = 1024
MIN_GPU_FRACTION = 0.01

_UPDATABLE = (
    "model_digest",
    "replicas",
    "resources",
    "max_ongoing_requests",
    "request_timeout",
    "max_queued_requests",
    "canary",
)
_SUBFIELDS = {
    "resources.gpus": ("resources", "gpus"),
    "resources.gpu_memory_bytes": ("resources", "gpu_memory_bytes"),
    "canary.mode": ("canary", "mode"),
}
_IMMUTABLE = ("name",)
_OUTPUT_ONLY = ("generation", "etag", "create_time", "update_time", "status")
_RUN_BY_REPLICAS = ("model_digest", "resources", "max_ongoing_requests", "canary")


def declared(deployment: Deployment) -> Deployment:
    """What a caller declares: the updatable fields alone, checked, with defaults filled in.

    Raises:
        StatusError: INVALID_ARGUMENT naming the field, its value and what is legal.
    """
    result = Deployment()
    _copy(result, deployment, _UPDATABLE)
    _fill(result)
    _check(result)
    return result


def merged(current: Deployment, changes: Deployment, mask: FieldMask | None) -> Deployment:
    """`current` with the changes that a mask names, checked and filled like `declared`.

    Args:
        current: as kept.
        changes: the new values.
        mask: None for all populated fields; `*` for all fields.

    Raises:
        StatusError: INVALID_ARGUMENT for a path that cannot be updated or a value not legal.
    """
    result = Deployment()
    result.CopyFrom(current)
    if mask is None or not mask.paths:
        populated = {field.name for field, _ in changes.ListFields()}
        _copy(result, changes, [field for field in _UPDATABLE if field in populated])
    else:
        for path in mask.paths:
            _apply(result, changes, path)
    _fill(result)
    _check(result)
    return result


def runs_the_same(one: Deployment, other: Deployment) -> bool:
    """Whether replicas of both run the same, so that none needs to be replaced."""
    first, second = Deployment(), Deployment()
    _copy(first, one, _RUN_BY_REPLICAS)
    _copy(second, other, _RUN_BY_REPLICAS)
    return first == second


def _apply(result: Deployment, changes: Deployment, path: str) -> None:
    if path == "*":
        _copy(result, changes, _UPDATABLE)
    elif path in _UPDATABLE:
        _copy(result, changes, [path])
    elif path in _SUBFIELDS:
        message, field = _SUBFIELDS[path]
        setattr(getattr(result, message), field, getattr(getattr(changes, message), field))
    elif path in _IMMUTABLE:
        raise invalid_argument(f"update_mask: {path} cannot be changed")
    elif path.partition(".")[0] in _OUTPUT_ONLY:
        raise invalid_argument(f"update_mask: {path} is set by the autoscaler")
    else:
        legal = ", ".join((*_UPDATABLE, *_SUBFIELDS))
        raise invalid_argument(
            f"update_mask: a deployment has no field {quoted(path)}; there are *, {legal}"
        )


def _copy(target: Deployment, source: Deployment, fields: tuple[str, ...] | list[str]) -> None:
    present = {field.name for field, _ in source.ListFields()}
    for field in fields:
        target.ClearField(field)
        if field not in present:
            continue
        value = getattr(source, field)
        if hasattr(value, "CopyFrom"):
            getattr(target, field).CopyFrom(value)
        else:
            setattr(target, field, value)


def _fill(deployment: Deployment) -> None:
    deployment.resources.SetInParent()
    deployment.max_ongoing_requests = (
        deployment.max_ongoing_requests or DEFAULT_MAX_ONGOING_REQUESTS
    )
    deployment.max_queued_requests = deployment.max_queued_requests or DEFAULT_MAX_QUEUED_REQUESTS
    if not deployment.HasField("request_timeout"):
        deployment.request_timeout.seconds = DEFAULT_REQUEST_TIMEOUT_S
    deployment.canary.mode = deployment.canary.mode or Canary.MODE_ZEROS


def _check(deployment: Deployment) -> None:
    if not model_archive.is_digest(deployment.model_digest):
        raise invalid_argument(
            f"model_digest = {quoted(deployment.model_digest)}: it must be sha256: and 64 "
            "hexadecimal digits in lower case, as UploadModel returns it"
        )
    _in_range("replicas", deployment.replicas, 0, MAX_REPLICAS)
    _in_range("max_ongoing_requests", deployment.max_ongoing_requests, 1, 1024)
    _in_range("max_queued_requests", deployment.max_queued_requests, 1, 1_000_000)
    _check_resources(deployment)
    timeout = deployment.request_timeout
    timeout_s = timeout.seconds + timeout.nanos / 1e9
    if abs(timeout.nanos) >= 1e9 or not 0.001 <= timeout_s <= 86_400:
        raise invalid_argument(
            f"request_timeout = {timeout_s:g} s: it must be 1 ms to 24 h (0.001 to 86400 s)"
        )
    if deployment.canary.mode not in Canary.Mode.values():
        legal = ", ".join(Canary.Mode.keys())
        raise invalid_argument(f"canary.mode = {deployment.canary.mode}: it must be one of {legal}")


def _check_resources(deployment: Deployment) -> None:
    gpus = deployment.resources.gpus
    whole = math.isfinite(gpus) and gpus == int(gpus)
    if not (0 <= gpus <= MAX_GPUS and (whole or MIN_GPU_FRACTION <= gpus < 1)):
        raise invalid_argument(
            f"resources.gpus = {gpus:g}: it must be a whole number from 0 to {MAX_GPUS}, or a "
            f"fraction of one GPU from {MIN_GPU_FRACTION} to below 1"
        )
    memory_bytes = deployment.resources.gpu_memory_bytes
    if memory_bytes < 0:
        raise invalid_argument(f"resources.gpu_memory_bytes = {memory_bytes}: it must be 0 or more")
    if memory_bytes and not gpus:
        raise invalid_argument(
            f"resources.gpu_memory_bytes = {memory_bytes}, but resources.gpus is 0: a replica on a "
            "CPU slot has no GPU memory"
        )


def _in_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise invalid_argument(f"{field} = {value}: it must be {low} to {high}")
