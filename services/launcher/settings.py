"""What a launcher can be told: by its operator alone, never by a request."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from services.launcher import allow_list
from services.runtime.config import ProcessSettings, service_config
from services.runtime.node_name import default_node
from services.wire import offered_volumes
from services.wire.offered_volumes import OfferedVolume

DEFAULT_IMAGE = "nvcr.io/nvidia/tritonserver:26.06-py3"
DEFAULT_ENGINE = "unix:///var/run/docker.sock"

GIB = 1024**3
MIB = 1024**2

_ENGINE = re.compile(r"unix:///\S+")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHARED_NETWORKS = ("host", "none", "bridge", "default")
_MAX_VARIABLES = 32


def default_engine() -> str:
    """Where the container engine listens, as $DOCKER_HOST or Docker's own default says."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE


def _engine(value: str) -> str:
    if not _ENGINE.fullmatch(value):
        raise ValueError(f"write a Unix socket, such as {DEFAULT_ENGINE}")
    return value


def _network(value: str) -> str:
    if not _NETWORK.fullmatch(value):
        raise ValueError("a network's name has 1 to 63 of A-Z, a-z, 0-9, '_', '.' and '-'")
    return value


def _own_network(value: str) -> str:
    if value in _SHARED_NETWORKS:
        raise ValueError(f"replicas get a network of their own, never Docker's {value!r}")
    return _network(value)


def _image(value: str) -> str:
    allow_list.normal(value)
    return value


def _images(value: list[str]) -> list[str]:
    allow_list.check_entries(value)
    return value


def _volumes(value: dict[str, str]) -> dict[str, str]:
    offered_volumes.offered(value)
    return value


def _absolute(value: Path | None) -> Path | None:
    if value is not None and not value.is_absolute():
        raise ValueError(f"{str(value)!r} is not an absolute path")
    return value


def _few(value: dict[str, str]) -> dict[str, str]:
    if len(value) > _MAX_VARIABLES:
        raise ValueError(f"{len(value)} variables; at most {_MAX_VARIABLES} are allowed")
    return value


AbsolutePath = Annotated[Path | None, AfterValidator(_absolute)]


class LauncherSettings(ProcessSettings):
    """Starts the containers of one node's replicas, all of one form, and nothing else."""

    model_config = service_config("launcher")

    mesh: str = Field(
        "forebay",
        pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$",
        description="Name of the mesh; a label and part of the name of every container. Two meshes "
        "that share an engine need two names.",
    )
    node: str = Field(
        default_factory=default_node,
        pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Name of this node, the same as its agent's. Default: the host name.",
    )
    state_dir: Path = Field(
        Path("forebay-node"),
        description="The agent's state_dir, under the same absolute path here, in the agent and on "
        "the engine's machine.",
    )
    socket: Path = Field(
        Path("forebay-launcher/launcher.sock"),
        description="Unix socket for the agent. Whoever may write to it may start replicas: its "
        "folder is for it alone.",
    )
    engine: Annotated[str, AfterValidator(_engine)] = Field(
        default_factory=default_engine,
        description="The container engine's socket, as unix:///path. Default: $DOCKER_HOST, else "
        f"{DEFAULT_ENGINE}.",
    )
    engine_timeout_s: float = Field(
        30.0,
        ge=1,
        le=600,
        description="How long the engine may take to answer a call, in seconds; stopping and "
        "pulling have longer.",
    )
    default_image: Annotated[str, AfterValidator(_image)] = Field(
        DEFAULT_IMAGE,
        description="Image of replicas whose deployment names none, as name:tag or "
        "name@sha256:…. Always allowed.",
    )
    allowed_images: Annotated[list[str], AfterValidator(_images)] = Field(
        [],
        description="Further images that deployments may name: name:tag, name@sha256:…, or name:* "
        "for every version of one name. At most 64.",
    )
    volumes: Annotated[dict[str, str], AfterValidator(_volumes)] = Field(
        {},
        description="Folders of this machine that replicas may see, as name and absolute path, as "
        'in the agent\'s settings: {"data": "/srv/data", "weights": "/srv/weights:ro"}.',
    )
    network: Annotated[str, AfterValidator(_own_network)] = Field(
        "forebay-replicas",
        description="Network of the replicas, made if it is not there. It must be internal.",
    )
    isolate_network_from_host: bool = Field(
        False,
        description="Makes that network without an address of this machine in it, so that replicas "
        "cannot reach what listens here. Only for an agent that is a container in the network: one "
        "beside the engine could not reach replicas either.",
    )
    user_id: int = Field(
        1000, ge=1, le=2**31 - 1, description="User and group that replicas run as; never root."
    )
    default_memory_bytes: int = Field(
        8 * GIB,
        ge=16 * MIB,
        le=1 << 60,
        description="Memory limit of replicas that declare none, in bytes.",
    )
    max_memory_bytes: int | None = Field(
        None,
        ge=16 * MIB,
        le=1 << 60,
        description="Most memory that a replica may ask for, in bytes. Unset: no limit but the "
        "machine's.",
    )
    shm_bytes: int = Field(
        GIB,
        ge=16 * MIB,
        le=1 << 50,
        description="Shared memory of a replica, in bytes; counts towards its memory as it is "
        "used.",
    )
    tmp_bytes: int = Field(
        GIB,
        ge=16 * MIB,
        le=1 << 50,
        description="Size of a replica's /tmp, in bytes; counts towards its memory as it is used.",
    )
    pids: int = Field(
        4096, ge=64, le=1 << 22, description="Processes and threads that a replica may have."
    )
    log_bytes: int = Field(
        10 * MIB,
        ge=MIB,
        le=GIB,
        description="Size of a log file of a replica, in bytes; three are kept.",
    )
    gpu_devices: Literal["auto", "nvidia", "cdi"] = Field(
        "auto",
        description="How containers get GPUs: nvidia (the NVIDIA Container Toolkit's runtime "
        "hook), cdi, or auto: cdi where the engine knows NVIDIA's CDI devices.",
    )
    mps_pipe_dir: AbsolutePath = Field(
        None,
        description="CUDA_MPS_PIPE_DIRECTORY of this machine's MPS control daemon. Where it is "
        "there, replicas with a share of a GPU are limited to that share by MPS.",
    )
    mps_shm_dir: AbsolutePath = Field(
        Path("/dev/shm"),  # noqa: S108
        description="What the MPS daemon has as /dev/shm, which its clients must have too.",
    )
    trace_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9_.:\[\]-]+(/[A-Za-z0-9_./-]*)?$",
        description="Where Triton sends its spans (OTLP over HTTP), as seen from a replica's "
        "container, such as http://node-agent:4318/v1/traces. Unset: nowhere.",
    )
    environment_network: Annotated[str, AfterValidator(_network)] = Field(
        "bridge",
        description="Network in which requirements.txt is installed; it reaches a package index.",
    )
    environment_variables: Annotated[dict[str, str], AfterValidator(_few)] = Field(
        {},
        description="Environment variables of that installation, such as PIP_INDEX_URL or "
        "HTTPS_PROXY.",
    )
    environment_timeout_s: float = Field(
        1800.0, ge=10, le=24 * 3600, description="How long that installation may take, in seconds."
    )

    @property
    def offered_volumes(self) -> dict[str, OfferedVolume]:
        """The volumes of this node by name."""
        return offered_volumes.offered(self.volumes)
