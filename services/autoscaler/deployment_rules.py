"""What a deployment may be: legal values, defaults, field masks, generations. Pure."""

from collections.abc import Iterable, MutableMapping, MutableSequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from forebay.v1.deployment_pb2 import Canary, Deployment
from forebay.v1.scaling_pb2 import ScalingPolicy
from services.autoscaler import ranges, resource_rules, scaling_rules
from services.wire import model_archive
from services.wire.names import quoted
from services.wire.status import invalid_argument

DEFAULT_MAX_ONGOING_REQUESTS = 8
DEFAULT_MAX_QUEUED_REQUESTS = 1000
DEFAULT_REQUEST_TIMEOUT_S = 60

MAX_REPLICAS = scaling_rules.MAX_REPLICAS


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that callers declare.

    Attributes:
        name: of the field in Deployment.
        run_by_replicas: whether a change of it replaces the replicas.
        subfields: those that an update mask may name one by one.
        asterisk_clears: whether the mask `*` clears the field where it is absent. Not what a person
            set by hand and only a person releases.
    """

    name: str
    run_by_replicas: bool = False
    subfields: tuple[str, ...] = ()
    asterisk_clears: bool = True


_FIELDS = (
    _Field("model_digest", run_by_replicas=True),
    _Field("replicas"),
    _Field(
        "resources",
        run_by_replicas=True,
        subfields=(
            "gpus",
            "gpu_memory_bytes",
            "accelerator_type",
            "cpus",
            "memory_bytes",
            "custom",
            "workers",
        ),
    ),
    _Field("max_ongoing_requests", run_by_replicas=True),
    _Field("request_timeout"),
    _Field("max_queued_requests"),
    _Field("canary", run_by_replicas=True, subfields=("mode",)),
    _Field(
        "scaling",
        subfields=(
            "policy",
            "min_replicas",
            "max_replicas",
            "initial_replicas",
            "upscaling_factor",
            "downscaling_factor",
            "upscale_delay",
            "downscale_delay",
            "downscale_to_zero_delay",
            "advisory",
            "windows",
        ),
    ),
    _Field("pinned_replicas", asterisk_clears=False),
    _Field("placement"),
    _Field("environment", run_by_replicas=True),
    _Field("volumes", run_by_replicas=True),
    _Field("image", run_by_replicas=True),
)
_IMMUTABLE = ("name",)
_OUTPUT_ONLY = ("generation", "etag", "create_time", "update_time", "status")

_UPDATABLE = {field.name: field for field in _FIELDS}
_SUBFIELDS = {
    f"{field.name}.{sub}": (field.name, sub) for field in _FIELDS for sub in field.subfields
}
_RUN_BY_REPLICAS = tuple(field.name for field in _FIELDS if field.run_by_replicas)


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
        mask: None for all populated fields; `*` for all fields. `pinned_replicas` is cleared only
            by a mask that names it.

    Raises:
        StatusError: INVALID_ARGUMENT for a path that cannot be updated or a value not legal.
    """
    result = Deployment()
    result.CopyFrom(current)
    if mask is None or not mask.paths:
        _copy(result, changes, _populated(changes))
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


def custom_functions(scaling: ScalingPolicy) -> list[str]:
    """The functions that a policy calls, as `package.module:function`; not whether they can be."""
    return scaling_rules.custom_functions(scaling)


def _apply(result: Deployment, changes: Deployment, path: str) -> None:
    if path == "*":
        populated = _populated(changes)
        _copy(
            result, changes, [f.name for f in _FIELDS if f.asterisk_clears or f.name in populated]
        )
    elif path in _UPDATABLE:
        _copy(result, changes, [path])
    elif path in _SUBFIELDS:
        field, subfield = _SUBFIELDS[path]
        if field == "scaling" and not result.HasField("scaling"):
            raise invalid_argument(
                f"update_mask: {path}: the deployment has a fixed number of replicas; set scaling "
                "as a whole first"
            )
        _copy(getattr(result, field), getattr(changes, field), [subfield])
    elif path in _IMMUTABLE:
        raise invalid_argument(f"update_mask: {path} cannot be changed")
    elif path.partition(".")[0] in _OUTPUT_ONLY:
        raise invalid_argument(f"update_mask: {path} is set by the autoscaler")
    else:
        legal = ", ".join((*_UPDATABLE, *_SUBFIELDS))
        raise invalid_argument(
            f"update_mask: a deployment has no field {quoted(path)}; there are *, {legal}"
        )


def _populated(changes: Deployment) -> list[str]:
    present = {field.name for field, _ in changes.ListFields()}
    return [name for name in _UPDATABLE if name in present]


def _copy(target: Message, source: Message, fields: Iterable[str]) -> None:
    """Makes fields of `target` what they are in `source`, absent ones absent."""
    present = {field.name for field, _ in source.ListFields()}
    for field in fields:
        target.ClearField(field)
        if field not in present:
            continue
        value = getattr(source, field)
        if hasattr(value, "CopyFrom"):
            getattr(target, field).CopyFrom(value)
        elif isinstance(value, MutableMapping):
            getattr(target, field).update(value)
        elif isinstance(value, MutableSequence):
            getattr(target, field).extend(value)
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
    deployment.placement = deployment.placement or Deployment.PLACEMENT_COMPACT
    # Another order is no other set of volumes, and no new generation.
    deployment.volumes.sort(key=lambda volume: volume.name)
    if deployment.HasField("scaling"):
        scaling_rules.fill(deployment.scaling, deployment.max_ongoing_requests)


def _check(deployment: Deployment) -> None:
    if not model_archive.is_digest(deployment.model_digest):
        raise invalid_argument(
            f"model_digest = {quoted(deployment.model_digest)}: it must be sha256: and 64 "
            "hexadecimal digits in lower case, as UploadModel returns it"
        )
    ranges.whole("replicas", deployment.replicas, 0, MAX_REPLICAS)
    ranges.whole("max_ongoing_requests", deployment.max_ongoing_requests, 1, 1024)
    ranges.whole("max_queued_requests", deployment.max_queued_requests, 1, 1_000_000)
    resource_rules.check_resources(deployment.resources)
    resource_rules.check_environment(deployment.environment)
    resource_rules.check_volumes(deployment.volumes)
    resource_rules.check_image(deployment.image)
    timeout = deployment.request_timeout
    timeout_s = ranges.seconds(timeout)
    if abs(timeout.nanos) > ranges.MAX_NANOS or not 0.001 <= timeout_s <= 86_400:
        raise invalid_argument(
            f"request_timeout = {timeout_s:g} s: it must be 1 ms to 24 h (0.001 to 86400 s)"
        )
    _check_enum("canary.mode", deployment.canary.mode, Canary.Mode)
    _check_enum("placement", deployment.placement, Deployment.Placement)
    if deployment.HasField("pinned_replicas"):
        ranges.whole("pinned_replicas", deployment.pinned_replicas, 0, MAX_REPLICAS)
    if deployment.HasField("scaling"):
        scaling_rules.check(deployment.scaling)


def _check_enum(field: str, value: int, enum: Any) -> None:
    if value not in enum.values():
        raise invalid_argument(f"{field} = {value}: it must be one of {', '.join(enum.keys())}")
