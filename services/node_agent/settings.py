"""What a node agent can be told."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from services.runtime import ports
from services.runtime.config import Address, ServiceSettings, service_config
from services.runtime.node_name import default_node
from services.wire import offered_volumes
from services.wire.offered_volumes import OfferedVolume


def default_triton_home() -> Path:
    """Where `forebay setup` puts Triton.

    That is $FOREBAY_TRITON_HOME, or beside this interpreter, or, where that cannot be written, in
    the user's data directory.
    """
    named = os.environ.get("FOREBAY_TRITON_HOME")
    if named:
        return Path(named)
    beside = Path(sys.prefix) / "share" / "forebay" / "triton"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    own = data / "forebay" / "triton"
    return own if own.is_dir() and not beside.is_dir() else beside


_RESOURCE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MAX_RESOURCES = 64


def _addresses(value: str) -> str:
    for address in value.split(","):
        ports.split(address)
    return value


def _resources(value: dict[str, float]) -> dict[str, float]:
    if len(value) > _MAX_RESOURCES:
        raise ValueError(f"{len(value)} resources; a node has at most {_MAX_RESOURCES}")
    for name, amount in value.items():
        if not _RESOURCE.fullmatch(name):
            raise ValueError(
                f"{name!r} is not the name of a resource: write a lower-case letter and up to 62 "
                "letters, digits, _ or -"
            )
        if not 0 < amount < float("inf"):
            raise ValueError(f"{name} = {amount:g}: an amount is more than 0; leave out what is 0")
    return value


def _volumes(value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    offered = offered_volumes.offered(value)
    # Folders that containers see are the launcher's to look at: the agent may not even see them.
    if info.data.get("runtime") != "docker":
        for volume in offered.values():
            offered_volumes.check_there(volume)
    return value


class NodeAgentSettings(ServiceSettings):
    """Runs Triton replicas on this machine and feeds them from the queue."""

    model_config = service_config("node_agent")

    node: str = Field(
        default_factory=default_node,
        pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Name of this node, unique in the mesh. Default: the host name.",
    )
    state_dir: Path = Field(
        Path("forebay-node"), description="Where replicas, models and logs are kept."
    )
    runtime: Literal["process", "docker"] = Field(
        "process",
        description="How replicas run: process (children of this agent, from triton_home) or "
        "docker (containers that a forebay-launcher beside it starts).",
    )
    launcher_socket: Path = Field(
        Path("forebay-launcher/launcher.sock"),
        description="Where the forebay-launcher of this node listens; for runtime docker.",
    )
    slots: int = Field(
        2, ge=0, le=1024, description="Replicas without a GPU that may run here at once."
    )
    cpus: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="CPUs that replicas may declare together. Unset: those this process may use; "
        "with runtime docker the machine's.",
    )
    memory_bytes: int | None = Field(
        None,
        ge=1,
        le=1 << 60,
        description="Memory that replicas may declare together, in bytes. Unset: the machine's, or "
        "with runtime process the limit of this agent's control group if that is less.",
    )
    resources: Annotated[dict[str, float], AfterValidator(_resources)] = Field(
        {},
        description='Other resources that replicas may declare, as name and amount: {"tpu": 2}. At '
        "most 64; names of lower-case letters, digits, _ and -.",
    )
    volumes: Annotated[dict[str, str], AfterValidator(_volumes)] = Field(
        {},
        description="Folders of this machine that replicas may see, as name and absolute path: "
        '{"data": "/srv/data", "weights": "/srv/weights:ro"}. With :ro for reading only. At most '
        "64; names of lower-case letters, digits and -. With runtime docker the launcher has the "
        "same names, and its paths count.",
    )
    simulated_gpus: int = Field(
        0,
        ge=0,
        le=16,
        description="GPUs to make up, in place of those of the machine, for trying things out: "
        "their replicas run on the CPU.",
    )
    simulated_gpu_memory_bytes: int = Field(
        24 * 1024**3, ge=1, le=1 << 60, description="Memory of each simulated GPU, in bytes."
    )
    simulated_gpu_product: str = Field(
        "Simulated GPU",
        min_length=1,
        max_length=100,
        description="Product that simulated GPUs pretend to be; the word Simulated is added.",
    )
    ignored_xids: list[Annotated[int, Field(ge=1, le=999)]] = Field(
        [],
        max_length=32,
        description="Errors of the NVIDIA driver (Xids) after which a GPU is used all the same: "
        "[109]. Which ones take it out of use is in docs/gpus.md.",
    )
    mps_pipe_dir: Path | None = Field(
        None,
        description="Where NVIDIA's MPS control daemon has its pipes: while it is there, replicas "
        "with a share of a GPU are held to that share. Default: $CUDA_MPS_PIPE_DIRECTORY, or "
        "nvidia-mps in /tmp. With runtime docker the launcher's own counts.",
    )
    autoscaler: Annotated[str, AfterValidator(_addresses)] = Field(
        ports.AUTOSCALER,
        description="Who says what to run, as host:port; several separated by commas, of which "
        "the one that leads is followed.",
    )
    metrics: Address = Field(ports.METRICS, description="Who is reported to, as host:port.")
    listen: Address = Field(
        ports.NODE_AGENT, description="Where the health service listens, as host:port."
    )
    trace_relay_listen: Address = Field(
        ports.TRACE_RELAY,
        description="Where Tritons send spans of their own while traces are on, as host:port; "
        "port 0 takes a free one and keeps it. For runtime docker, an address that containers "
        "reach, as the launcher's trace_url says.",
    )
    triton_home: Path = Field(
        default_factory=default_triton_home,
        description="Triton as `forebay setup` prepared it. Default: beside the interpreter.",
    )
    environments_dir: Path | None = Field(
        None,
        description="Where the Python environments of models are kept. Default: beside Triton.",
    )
    startup_timeout_s: float = Field(
        600.0, ge=1, le=24 * 3600, description="How long a Triton may load its model, in seconds."
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="How long SIGTERM waits for ongoing requests, in seconds.",
    )
    failure_retry_s: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="How long a replica rests after three failures in a row, in seconds.",
    )

    @property
    def autoscalers(self) -> tuple[str, ...]:
        """Each autoscaler's address."""
        return tuple(self.autoscaler.split(","))

    @property
    def offered_volumes(self) -> dict[str, OfferedVolume]:
        """The volumes of this node by name."""
        return offered_volumes.offered(self.volumes)
