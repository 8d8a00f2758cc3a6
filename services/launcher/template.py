"""Pure: the one form that a replica's container has. Nothing else is ever started for a replica.

Everything that keeps a model inside its container is in this file. A model is code of somebody
else's: it may read its own files, use its GPUs and its share of the machine, and answer whoever
shows its key. It gets

- no right: user and group of its own, every capability dropped, none to be had by set-user-ID
  programs, the engine's default seccomp profile, namespaces of its own for processes, shared memory
  and control groups;
- no file to change: root, model, repository and environment are for reading only; what it writes
  goes to /tmp, to /dev/shm, both in memory and bounded, and to volumes offered for writing;
- no way out: an internal network, no published port, no name server beyond the engine's own;
- no more than its share: memory without swap, CPUs, processes, size of its log.

Other replicas share that network. So Triton answers only calls with this replica's key, to any of
its services, and has no HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.launcher.request_check import CheckedReplica, volume_path, volume_variables
from services.launcher.settings import LauncherSettings

GRPC_PORT = 8001
EXIT_TIMEOUT_S = 5
"""How long Triton waits for calls under way once it is told to end."""
STOP_TIMEOUT_S = 10
"""How long the engine waits for Triton when the engine itself ends."""
LOG_FILES = 3

KIND_REPLICA = "replica"
KIND_ENVIRONMENT = "environment"

LABEL_KIND = "io.forebay.kind"
LABEL_MESH = "io.forebay.mesh"
LABEL_NODE = "io.forebay.node"
LABEL_STATE_DIR = "io.forebay.state_dir"
LABEL_REPLICA = "io.forebay.replica"
LABEL_DEPLOYMENT = "io.forebay.deployment"
LABEL_GENERATION = "io.forebay.generation"
LABEL_REQUEST = "io.forebay.request"
LABEL_ENVIRONMENT = "io.forebay.environment"

REPOSITORY = "/forebay/repository"
MODEL = "/forebay/model"
ENVIRONMENT = "/forebay/environment"
TMP = "/tmp"  # noqa: S108
SHM = "/dev/shm"  # noqa: S108
MPS_PIPES = "/forebay/mps"

_PROTOCOLS = (
    "health,metadata,inference,shared-memory,model-config,model-repository,statistics,trace,logging"
)
_NO_NAME_SERVER = "127.0.0.1"
"""Engines before 25.0.5 pass questions that they cannot answer on to the machine's name servers,
even from internal networks (CVE-2024-29018). Asked of the container itself, they end there."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a replica's files are, under the same path here and on the engine's machine.

    Attributes:
        repository: Triton's model repository of the replica.
        model: the unpacked model.
        environment: the environment of its Python code; None for the image's own.
    """

    repository: str
    model: str
    environment: str | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the engine and the machine have, as far as the form depends on it.

    Attributes:
        cdi: GPUs are given as CDI devices rather than to the driver `nvidia`.
        mps: the MPS control daemon's pipes are there.
    """

    cdi: bool = False
    mps: bool = False


def container_name(settings: LauncherSettings, replica_id: str) -> str:
    """Name of a replica's container: one name, one container, whatever is asked twice."""
    return f"{settings.mesh}-{settings.node}-{replica_id}"


def owner_labels(settings: LauncherSettings, kind: str) -> dict[str, str]:
    """What tells this node's containers of a kind from all others.

    The folder is among it, so that two launchers that were given one name by mistake do not take
    each other's replicas for orphans of their own.
    """
    return {
        LABEL_KIND: kind,
        LABEL_MESH: settings.mesh,
        LABEL_NODE: settings.node,
        LABEL_STATE_DIR: str(settings.state_dir),
    }


def replica_container(
    replica: CheckedReplica,
    settings: LauncherSettings,
    folders: Folders,
    around: Surroundings = Surroundings(),
) -> dict[str, Any]:
    """The configuration of a replica's container, as the Engine API's ContainerCreate takes it.

    Args:
        replica: what was asked for, checked.
        settings: the launcher's.
        folders: the replica's files.
        around: what the engine and the machine have.
    """
    shares_gpu = around.mps and bool(replica.gpu_uuids) and 0 < replica.gpus < 1
    host = {
        **confinement(settings, replica.memory_bytes or settings.default_memory_bytes),
        "NetworkMode": settings.network,
        "Dns": [_NO_NAME_SERVER],
        "Mounts": _mounts(replica, settings, folders, shares_gpu),
        "NanoCpus": round(replica.cpus * 1e9),
        "DeviceRequests": _device_requests(replica, around.cdi),
    }
    if shares_gpu:
        # It is mounted instead: the daemon and its clients share memory there.
        del host["ShmSize"]
    labels = {
        **owner_labels(settings, KIND_REPLICA),
        LABEL_REPLICA: replica.replica_id,
        LABEL_DEPLOYMENT: replica.deployment_id,
        LABEL_GENERATION: str(replica.generation),
        LABEL_REQUEST: replica.digest,
    }
    return {
        "Image": replica.image_id,
        "Cmd": _command(replica, settings),
        "Env": _environment(replica, settings, around, shares_gpu),
        "Labels": labels,
        **identity(settings, "replica"),
        "HostConfig": host,
    }


def identity(settings: LauncherSettings, hostname: str) -> dict[str, Any]:
    """Who runs in a container, and how it is ended; the image's own wishes are overruled."""
    return {
        "User": f"{settings.user_id}:{settings.user_id}",
        "Hostname": hostname,
        "WorkingDir": TMP,
        "StopSignal": "SIGTERM",
        "StopTimeout": STOP_TIMEOUT_S,
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": False,
    }


def confinement(settings: LauncherSettings, memory_bytes: int) -> dict[str, Any]:
    """What holds for every container that the launcher starts, as parts of HostConfig.

    Args:
        settings: the launcher's.
        memory_bytes: limit of its memory; it gets no swap beyond it.
    """
    user = settings.user_id
    return {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "Tmpfs": {
            TMP: f"rw,exec,nosuid,nodev,size={settings.tmp_bytes},uid={user},gid={user},mode=0700"
        },
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "PortBindings": {},
        "PublishAllPorts": False,
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "ShmSize": settings.shm_bytes,
        "PidsLimit": settings.pids,
        "OomKillDisable": False,
        # Where the machine itself runs out of memory, models go before what feeds them.
        "OomScoreAdj": 300,
        # A core is written by the machine's own program for cores, outside the container.
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(settings.log_bytes), "max-file": str(LOG_FILES)},
        },
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
    }


def bind(source: str, target: str, read_only: bool) -> dict[str, Any]:
    """A folder of the machine in a container. Unlike in `Binds`, it must exist."""
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _command(replica: CheckedReplica, settings: LauncherSettings) -> list[str]:
    command = [
        "tritonserver",
        f"--model-repository={REPOSITORY}",
        "--model-control-mode=explicit",
        f"--load-model={replica.deployment_id}",
        "--grpc-address=0.0.0.0",
        f"--grpc-port={GRPC_PORT}",
        "--allow-http=false",
        "--allow-metrics=false",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--grpc-restricted-protocol={_PROTOCOLS}:forebay={replica.access_key}",
        f"--backend-config=python,shm-region-prefix-name=forebay_{replica.replica_id}_",
    ]
    if settings.trace_url is not None:
        command += [
            "--trace-config=mode=opentelemetry",
            # None of its own accord: calls with a traceparent only.
            "--trace-config=rate=0",
            "--trace-config=level=TIMESTAMPS",
            f"--trace-config=opentelemetry,url={settings.trace_url}",
            "--trace-config=opentelemetry,resource=service.name=triton",
            f"--trace-config=opentelemetry,resource=forebay.deployment={replica.deployment_id}",
            f"--trace-config=opentelemetry,resource=forebay.replica={replica.replica_id}",
            f"--trace-config=opentelemetry,resource=forebay.node={settings.node}",
        ]
    return command


def _environment(
    replica: CheckedReplica, settings: LauncherSettings, around: Surroundings, shares_gpu: bool
) -> list[str]:
    own: dict[str, str] = {
        # An image of NVIDIA's says `all`, which an engine whose default runtime is NVIDIA's obeys.
        "NVIDIA_VISIBLE_DEVICES": "void",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **volume_variables(replica.volumes),
    }
    if replica.gpu_uuids and not around.cdi:
        own["NVIDIA_VISIBLE_DEVICES"] = ",".join(replica.gpu_uuids)
    if replica.environment_id:
        theirs = replica.variables.get("PYTHONPATH")
        own["PYTHONPATH"] = f"{ENVIRONMENT}:{theirs}" if theirs else ENVIRONMENT
    if shares_gpu:
        own |= _mps_variables(replica)
    return [
        f"{name}={value}"
        for name, value in sorted({"HOME": TMP, **replica.variables, **own}.items())
    ]


def _mps_variables(replica: CheckedReplica) -> Mapping[str, str]:
    """What holds a client of MPS to its share.

    CUDA reads them as it starts: the share of the GPU's multiprocessors in percent, and the memory
    that may be allocated on each device, of which the container sees one.
    """
    limits = {
        "CUDA_MPS_PIPE_DIRECTORY": MPS_PIPES,
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{max(1.0, replica.gpus * 100):.4g}",
    }
    if replica.gpu_memory_bytes:
        megabytes = max(1, replica.gpu_memory_bytes // 1024**2)
        limits["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={megabytes}M"
    return limits


def _mounts(
    replica: CheckedReplica, settings: LauncherSettings, folders: Folders, shares_gpu: bool
) -> list[dict[str, Any]]:
    mounts = [
        bind(folders.repository, REPOSITORY, read_only=True),
        bind(folders.model, MODEL, read_only=True),
    ]
    if folders.environment is not None:
        mounts.append(bind(folders.environment, ENVIRONMENT, read_only=True))
    mounts += [
        bind(volume.host_path, volume_path(volume.name), volume.read_only)
        for volume in replica.volumes
    ]
    if shares_gpu:
        # Clients write to the daemon's pipes and sockets and to the memory it shares with them.
        mounts.append(bind(str(settings.mps_pipe_dir), MPS_PIPES, read_only=False))
        mounts.append(bind(str(settings.mps_shm_dir), SHM, read_only=False))
    return mounts


def _device_requests(replica: CheckedReplica, cdi: bool) -> list[dict[str, Any]]:
    if not replica.gpu_uuids:
        return []
    if cdi:
        return [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={u}" for u in replica.gpu_uuids]}]
    return [
        {
            "Driver": "nvidia",
            "DeviceIDs": list(replica.gpu_uuids),
            "Capabilities": [["gpu", "compute", "utility"]],
        }
    ]
