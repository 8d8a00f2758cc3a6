"""What a node agent can be told."""

import os
import re
import socket
import sys
from pathlib import Path

from pydantic import Field

from services.runtime import ports
from services.runtime.config import Address, ServiceSettings, service_config


def default_node() -> str:
    """This machine's host name, as far as a node may be called so."""
    name = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower().partition(".")[0]).strip("-")
    return name[:63].strip("-") if re.match(r"[a-z]", name) else f"node-{name}"[:63].strip("-")


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
    slots: int = Field(
        2, ge=0, le=1024, description="Replicas without a GPU that may run here at once."
    )
    autoscaler: Address = Field(ports.AUTOSCALER, description="Who says what to run, as host:port.")
    metrics: Address = Field(ports.METRICS, description="Who is reported to, as host:port.")
    listen: Address = Field(
        ports.NODE_AGENT, description="Where the health service listens, as host:port."
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
