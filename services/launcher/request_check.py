"""Pure: what a request may ask for. Everything else is refused before the engine hears of it.

A request says names and numbers. Each is compared with what such a name or number can be; paths,
commands, mounts, devices and privileges cannot be said at all.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from forebay.v1.launcher_pb2 import StartReplicaRequest, StopReplicaRequest
from services.launcher.allow_list import is_image_id
from services.launcher.refusal import Kind, RefusedError, invalid
from services.wire import deployment_words as words
from services.wire.names import is_id, quoted
from services.wire.offered_volumes import OfferedVolume

MAX_VARIABLES = 80
MAX_VARIABLES_BYTES = 128 * 1024
MAX_VOLUMES = 16
MAX_GPUS = 16
MAX_CPUS = 4096.0
MIN_MEMORY_BYTES = 16 * 1024**2
MAX_GPU_MEMORY_BYTES = 1 << 50
MAX_GRACE_S = 300.0
MAX_REQUIREMENTS_BYTES = 64 * 1024
MAX_GENERATION = 1 << 62

_REPLICA = re.compile(r"(?P<deployment>.+)-[0-9a-f]{8}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ENVIRONMENT = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"[A-Za-z0-9_-]{32,128}")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_GPU = re.compile(rf"GPU-{_UUID}")
_MIG = re.compile(rf"MIG-{_UUID}|MIG-GPU-{_UUID}/[0-9]{{1,3}}/[0-9]{{1,3}}")

# What NVIDIA's container runtime, the dynamic linker or the template itself reads.
REFUSED_VARIABLES = frozenset(words.RESERVED_VARIABLES) - {"FOREBAY_CPUS"}
REFUSED_PREFIXES = ("NVIDIA_", "LD_", "CUDA_MPS_", "DOCKER_")
_VOLUME_PREFIX = "FOREBAY_VOLUME_"


@dataclass(frozen=True, slots=True)
class CheckedVolume:
    """A volume that a replica may see.

    Attributes:
        name: its name.
        host_path: where it is, from the launcher's own settings.
        read_only: the replica may only read it.
    """

    name: str
    host_path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class CheckedReplica:
    """A replica that may be started.

    Attributes:
        replica_id: the replica.
        deployment_id: its deployment, and the name of its model in Triton.
        image_id: image, as `sha256:…`.
        model: name of a folder in the node's folder of models.
        environment_id: name of a folder in the node's folder of environments; empty for none.
        gpu_uuids: NVML UUIDs of GPUs, or of one MIG instance.
        gpus: GPUs it declares.
        gpu_memory_bytes: GPU memory it declares; 0 if it does not.
        cpus: CPUs it may use; 0 for no limit.
        memory_bytes: memory it may use; 0 for the launcher's default.
        variables: of its environment, legal and not the template's own.
        volumes: what it sees of the node's volumes.
        access_key: what callers of its Triton show.
        generation: of the deployment.
        digest: of the whole request, to tell a repeated request from another one.
    """

    replica_id: str
    deployment_id: str
    image_id: str
    model: str
    environment_id: str
    gpu_uuids: tuple[str, ...]
    gpus: float
    gpu_memory_bytes: int
    cpus: float
    memory_bytes: int
    variables: Mapping[str, str]
    volumes: tuple[CheckedVolume, ...]
    access_key: str
    generation: int
    digest: str


def check_start(
    request: StartReplicaRequest,
    offered: Mapping[str, OfferedVolume],
    max_memory_bytes: int | None = None,
) -> CheckedReplica:
    """Checks every field of a request to start a replica.

    Args:
        request: as it came.
        offered: the volumes of the launcher's own settings.
        max_memory_bytes: most that a replica may ask for; None for any.

    Raises:
        RefusedError: if anything in it is not legal; names the field, its value and what is.
    """
    check_replica_id(request.replica_id)
    if request.replica_id[:-9] != request.deployment_id:
        raise invalid(
            f"deployment_id = {quoted(request.deployment_id)} is not what replica_id = "
            f"{quoted(request.replica_id)} begins with"
        )
    if not _MODEL.fullmatch(request.model):
        raise invalid(
            f"model = {quoted(request.model)}: write the name of a folder of models: letters, "
            "digits, '.', '_' and '-', at most 128, starting with a letter or digit"
        )
    if request.environment_id and not _ENVIRONMENT.fullmatch(request.environment_id):
        raise invalid(
            f"environment_id = {quoted(request.environment_id)} is none that PrepareEnvironment "
            "gives: 32 hexadecimal digits"
        )
    if not _KEY.fullmatch(request.access_key):
        # Without its value: it is a secret.
        raise invalid("access_key: write 32 to 128 of A-Z, a-z, 0-9, '_' and '-'")
    if not 0 <= request.generation <= MAX_GENERATION:
        raise invalid(f"generation = {request.generation}: write 0 or more")
    volumes = _volumes(request, offered)
    return CheckedReplica(
        replica_id=request.replica_id,
        deployment_id=request.deployment_id,
        image_id=check_image_id(request.image_id),
        model=request.model,
        environment_id=request.environment_id,
        gpu_uuids=_gpu_uuids(request),
        gpus=_number("gpus", request.gpus, MAX_GPUS),
        gpu_memory_bytes=_bytes("gpu_memory_bytes", request.gpu_memory_bytes, MAX_GPU_MEMORY_BYTES),
        cpus=_number("cpus", request.cpus, MAX_CPUS),
        memory_bytes=_memory(request.memory_bytes, max_memory_bytes),
        variables=_variables(request.variables, volumes),
        volumes=volumes,
        access_key=request.access_key,
        generation=request.generation,
        digest=hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest(),
    )


def check_replica_id(text: str) -> str:
    """Returns `text` if it is the id of a replica: a deployment, a hyphen, 8 hexadecimal digits.

    Raises:
        RefusedError: if it is not.
    """
    found = _REPLICA.fullmatch(text) if len(text) <= 72 else None
    if found is None or not is_id(found["deployment"]):
        raise invalid(
            f"replica_id = {quoted(text)}: write the deployment's name, a hyphen and eight "
            "hexadecimal digits, such as iris-0a1b2c3d"
        )
    return text


def check_image_id(text: str) -> str:
    """Returns `text` if it is the id of an image.

    Raises:
        RefusedError: if it is not.
    """
    if not is_image_id(text):
        raise invalid(
            f"image_id = {quoted(text)}: write what PrepareImage gave, sha256: and 64 hexadecimal "
            "digits"
        )
    return text


def check_requirements(content: bytes) -> bytes:
    """Returns the content of a requirements.txt if it is not too long.

    What it says is pip's to judge, in a container of its own.

    Raises:
        RefusedError: if it is longer than 64 KiB, or no text.
    """
    if len(content) > MAX_REQUIREMENTS_BYTES:
        raise invalid(
            f"requirements has {len(content)} bytes; at most {MAX_REQUIREMENTS_BYTES} are allowed"
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"requirements is not UTF-8 text: {error.reason}") from error
    return content


def grace_s(request: StopReplicaRequest) -> float:
    """How long a replica gets to finish, in seconds; 0 kills it at once.

    Raises:
        RefusedError: if that is negative or more than 5 minutes.
    """
    if not request.HasField("grace_period"):
        return 0.0
    seconds = request.grace_period.seconds + request.grace_period.nanos / 1e9
    if not 0 <= seconds <= MAX_GRACE_S:
        raise invalid(f"grace_period = {seconds:g} s: write 0 to {MAX_GRACE_S:g} s")
    return float(seconds)


def _gpu_uuids(request: StartReplicaRequest) -> tuple[str, ...]:
    uuids = tuple(request.gpu_uuids)
    if len(uuids) > MAX_GPUS:
        raise invalid(f"gpu_uuids has {len(uuids)} GPUs; at most {MAX_GPUS} are allowed")
    for uuid in uuids:
        if not _GPU.fullmatch(uuid) and not _MIG.fullmatch(uuid):
            raise invalid(
                f"gpu_uuids: {quoted(uuid)} is no UUID of a GPU (GPU-…) or a MIG instance (MIG-…) "
                "as NVML gives it"
            )
    if len(set(uuids)) < len(uuids):
        raise invalid(f"gpu_uuids names a GPU twice: {', '.join(uuids)}")
    if len(uuids) > 1 and any(uuid.startswith("MIG-") for uuid in uuids):
        # CUDA uses the first MIG instance it sees and no other.
        raise invalid("gpu_uuids: a replica gets one MIG instance, and no GPU beside it")
    if uuids and not request.gpus > 0:
        raise invalid(f"gpus = {request.gpus:g} with {len(uuids)} gpu_uuids: write more than 0")
    if request.gpus < 1 and len(uuids) > 1:
        raise invalid(f"gpus = {request.gpus:g} is a share of one GPU, and gpu_uuids has several")
    return uuids


def _variables(
    variables: Mapping[str, str], volumes: tuple[CheckedVolume, ...]
) -> Mapping[str, str]:
    if len(variables) > MAX_VARIABLES:
        raise invalid(f"variables has {len(variables)}; at most {MAX_VARIABLES} are allowed")
    own = volume_variables(volumes)
    checked: dict[str, str] = {}
    for name, value in sorted(variables.items()):
        if not words.is_variable(name):
            raise invalid(f"variables: {quoted(name)} is no name: write {words.LEGAL_VARIABLE}")
        if not words.is_variable_value(value):
            raise invalid(f"variables: the value of {name} is not {words.LEGAL_VALUE}")
        if name.startswith(_VOLUME_PREFIX):
            if own.get(name) != value:
                raise invalid(
                    f"variables: {name} is set by the launcher, from volumes; leave it out"
                )
        elif name in REFUSED_VARIABLES or name.startswith(REFUSED_PREFIXES):
            raise invalid(f"variables: {name} is reserved; leave it out")
        else:
            checked[name] = value
    size_bytes = sum(len(name) + len(value.encode()) for name, value in checked.items())
    if size_bytes > MAX_VARIABLES_BYTES:
        raise invalid(
            f"variables has {size_bytes} bytes; at most {MAX_VARIABLES_BYTES} are allowed"
        )
    return checked


def volume_path(name: str) -> str:
    """Where a replica's container sees a volume."""
    return f"/forebay/volumes/{name}"


def volume_variables(volumes: tuple[CheckedVolume, ...]) -> dict[str, str]:
    """What tells a replica where its volumes are, and which it may only read."""
    found: dict[str, str] = {}
    for volume in volumes:
        found[words.volume_variable(volume.name)] = volume_path(volume.name)
        if volume.read_only:
            found[words.read_only_variable(volume.name)] = "1"
    return found


def _volumes(
    request: StartReplicaRequest, offered: Mapping[str, OfferedVolume]
) -> tuple[CheckedVolume, ...]:
    if len(request.volumes) > MAX_VOLUMES:
        raise invalid(f"volumes has {len(request.volumes)}; at most {MAX_VOLUMES} are allowed")
    checked: dict[str, CheckedVolume] = {}
    for wanted in request.volumes:
        volume = offered.get(wanted.name)
        if volume is None:
            raise RefusedError(
                Kind.PERMISSION_DENIED,
                f"volumes: the launcher does not offer {quoted(wanted.name)}: add it to its "
                "setting volumes, as it is in the agent's",
            )
        if wanted.name in checked:
            raise invalid(f"volumes names {wanted.name} twice")
        if volume.read_only and not wanted.read_only:
            raise RefusedError(
                Kind.PERMISSION_DENIED,
                f"volumes: the launcher offers {wanted.name} for reading only: write read_only: "
                "true in the deployment's file, or offer it for writing in the launcher's setting",
            )
        checked[wanted.name] = CheckedVolume(wanted.name, str(volume.path), wanted.read_only)
    return tuple(checked.values())


def _memory(memory_bytes: int, max_memory_bytes: int | None) -> int:
    most = max_memory_bytes or 1 << 60
    if memory_bytes and not MIN_MEMORY_BYTES <= memory_bytes <= most:
        raise invalid(
            f"memory_bytes = {memory_bytes}: write 0 for the default, or {MIN_MEMORY_BYTES} to "
            f"{most}"
        )
    return memory_bytes


def _bytes(name: str, value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise invalid(f"{name} = {value}: write 0 to {most}")
    return value


def _number(name: str, value: float, most: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= most:
        raise invalid(f"{name} = {value:g}: write 0 to {most:g}")
    return value
