"""What the local mesh runs: the same programs a fleet runs, with addresses and state of its own."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forebay.local.child import ChildSpec
from forebay.local.nats_server import NatsFiles
from forebay.local.state import STATE_VARIABLE
from services.runtime import ports

NATS, METRICS, AUTOSCALER, ROUTER = "nats", "metrics", "autoscaler", "router"

# Agents drain and stop their Tritons.
DRAIN_GRACE_S = 40.0
# The router answers the calls it has accepted: its drain_s and the time to end.
ROUTER_GRACE_S = 70.0
STOP_GRACE_S = 10.0

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What a local mesh consists of and where it listens.

    Attributes:
        state_dir: everything the mesh keeps, and its logs.
        triton_home: as `forebay setup` makes it.
        nodes: how many node agents.
        slots: CPU slots of each.
        router, autoscaler, metrics, metrics_http: addresses to listen on; port 0 lets the kernel
            choose one, which stays the same while the mesh runs.
        ack_wait_s: how long a delivery may go without progress before it is delivered again; None
            leaves it to the services.
        log_level: debug, info, warning or error.
    """

    state_dir: Path
    triton_home: Path
    nodes: int = 1
    slots: int = 2
    router: str = ports.ROUTER
    autoscaler: str = ports.AUTOSCALER
    metrics: str = ports.METRICS
    metrics_http: str = ports.METRICS_HTTP
    ack_wait_s: float | None = None
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class MeshAddresses:
    """Where a local mesh listens, each as `host:port`."""

    router: str
    autoscaler: str
    metrics: str
    metrics_http: str
    nats: str = field(repr=False)


def node_names(options: MeshOptions) -> list[str]:
    """Names of the nodes, which are also those of their agents' processes."""
    return [f"node-{number}" for number in range(1, options.nodes + 1)]


def nats(options: MeshOptions, binary: Path, files: NatsFiles) -> ChildSpec:
    """nats-server."""
    return ChildSpec(
        NATS,
        (str(binary), "-c", str(files.config)),
        _log_file(options, NATS),
        None,
        _environment(options),
        STOP_GRACE_S,
    )


def services(options: MeshOptions, addresses: MeshAddresses, files: NatsFiles) -> list[ChildSpec]:
    """Every service of the mesh, in the order in which they are said to start."""
    specs = [
        _service(
            options,
            addresses,
            files,
            METRICS,
            "metrics",
            {"--listen": addresses.metrics, "--http-listen": addresses.metrics_http},
        ),
        _service(
            options,
            addresses,
            files,
            AUTOSCALER,
            "autoscaler",
            {"--listen": addresses.autoscaler, "--metrics": addresses.metrics},
        ),
        _service(
            options,
            addresses,
            files,
            ROUTER,
            "router",
            {"--listen": addresses.router},
            ROUTER_GRACE_S,
        ),
    ]
    for name in node_names(options):
        flags = {
            "--node": name,
            "--state-dir": str(options.state_dir / "nodes" / name),
            "--slots": str(options.slots),
            "--autoscaler": addresses.autoscaler,
            "--metrics": addresses.metrics,
            "--triton-home": str(options.triton_home),
        }
        specs.append(_service(options, addresses, files, name, "node_agent", flags, DRAIN_GRACE_S))
    return specs


def _service(
    options: MeshOptions,
    addresses: MeshAddresses,
    files: NatsFiles,
    name: str,
    package: str,
    flags: Mapping[str, str],
    stop_grace_s: float = STOP_GRACE_S,
) -> ChildSpec:
    ready_file = options.state_dir / "run" / f"{name}.json"
    every = {
        "--nats-url": f"nats://{addresses.nats}",
        "--nats-credentials-file": str(files.credentials),
        "--ready-file": str(ready_file),
        "--log-format": "json",
        "--log-level": options.log_level,
        **flags,
    }
    if options.ack_wait_s is not None:
        every["--ack-wait-s"] = f"{options.ack_wait_s:g}"
    words = [word for flag in every.items() for word in flag]
    # -P: a directory named `services` where the mesh was started must not be taken for ours.
    command = (sys.executable, "-P", "-m", f"services.{package}.main", *words)
    return ChildSpec(
        name, command, _log_file(options, name), ready_file, _environment(options), stop_grace_s
    )


def _log_file(options: MeshOptions, name: str) -> Path:
    return options.state_dir / "logs" / f"{name}.log"


def _environment(options: MeshOptions) -> dict[str, str]:
    environment = {**os.environ, STATE_VARIABLE: str(options.state_dir)}
    if (_ROOT / "pyproject.toml").is_file():
        # A checkout need not be installed.
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{others}" if others else str(_ROOT)
    return environment
