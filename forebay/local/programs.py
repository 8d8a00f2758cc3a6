"""What the local mesh runs: the same programs a fleet runs, with addresses and state of its own."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forebay.local.child import ChildSpec
from forebay.local.nats_server import NatsFiles
from forebay.local.state import STATE_VARIABLE
from services.runtime import children, ports

NATS, METRICS, AUTOSCALER, ROUTER = "nats", "metrics", "autoscaler", "router"

# Agents drain and stop their Tritons.
DRAIN_GRACE_S = 40.0
# The router answers the calls it has accepted: its drain_s and the time to end.
ROUTER_GRACE_S = 70.0
STOP_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What a local mesh consists of and where it listens.

    Attributes:
        state_dir: everything the mesh keeps, and its logs.
        triton_home: as `forebay setup` makes it.
        nodes: how many node agents.
        slots: CPU slots of each.
        gpus_per_node: simulated GPUs of each; 0 leaves the GPUs to NVML.
        gpu_product: what those pretend to be, such as `L4`; None leaves it to the agents.
        router, autoscaler, metrics, metrics_http: addresses to listen on; port 0 lets the kernel
            choose one, which stays the same while the mesh runs.
        autoscalers: 1 or 2, of which one leads; the second listens on a port the kernel chooses.
        autoscaler_flags: further flags of every autoscaler with their values, such as
            `--node-grace-s`: `5`.
        max_nodes: nodes that the autoscaler may add by itself as processes of this machine, with
            slots, GPUs and volumes like the others; 0 for none.
        ack_wait_s: how long a delivery may go without progress before it is delivered again; None
            leaves it to the services.
        log_level: debug, info, warning or error.
        volumes: of every node, an absolute path by name; with `:ro` after it for reading only.
    """

    state_dir: Path
    triton_home: Path
    nodes: int = 1
    slots: int = 2
    gpus_per_node: int = 0
    gpu_product: str | None = None
    router: str = ports.ROUTER
    autoscaler: str = ports.AUTOSCALER
    metrics: str = ports.METRICS
    metrics_http: str = ports.METRICS_HTTP
    ack_wait_s: float | None = None
    log_level: str = "info"
    autoscalers: int = 1
    autoscaler_flags: Mapping[str, str] = field(default_factory=dict)
    max_nodes: int = 0
    volumes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeshAddresses:
    """Where a local mesh listens, each as `host:port`.

    Attributes:
        autoscaler: the first of `autoscalers`.
        autoscalers: all of them.
    """

    router: str
    autoscaler: str
    metrics: str
    metrics_http: str
    nats: str = field(repr=False)
    autoscalers: tuple[str, ...]


def node_names(options: MeshOptions) -> list[str]:
    """Names of the nodes, which are also those of their agents' processes."""
    return [f"node-{number}" for number in range(1, options.nodes + 1)]


def autoscaler_names(options: MeshOptions) -> list[str]:
    """Names of the autoscalers' processes."""
    return [AUTOSCALER, *(f"{AUTOSCALER}-{number}" for number in range(2, options.autoscalers + 1))]


def nats(options: MeshOptions, binary: Path, files: NatsFiles) -> ChildSpec:
    """nats-server."""
    return ChildSpec(
        NATS,
        (str(binary), "-c", str(files.config)),
        _log_file(options, NATS),
        None,
        environment(options),
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
        *(
            _service(
                options,
                addresses,
                files,
                name,
                "autoscaler",
                {
                    "--listen": listen,
                    "--metrics": addresses.metrics,
                    **_provider_flags(options, addresses),
                    **options.autoscaler_flags,
                },
            )
            for name, listen in zip(autoscaler_names(options), addresses.autoscalers, strict=True)
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
            "--autoscaler": ",".join(addresses.autoscalers),
            "--metrics": addresses.metrics,
            "--triton-home": str(options.triton_home),
            **_gpu_flags(options, "--"),
            **_volume_flags(options, "--"),
        }
        specs.append(_service(options, addresses, files, name, "node_agent", flags, DRAIN_GRACE_S))
    return specs


def _gpu_flags(options: MeshOptions, prefix: str) -> dict[str, str]:
    if not options.gpus_per_node:
        return {}
    flags = {f"{prefix}simulated-gpus": str(options.gpus_per_node)}
    if options.gpu_product is not None:
        flags[f"{prefix}simulated-gpu-product"] = options.gpu_product
    return flags


def _volume_flags(options: MeshOptions, prefix: str) -> dict[str, str]:
    return {f"{prefix}volumes": json.dumps(dict(options.volumes))} if options.volumes else {}


def _provider_flags(options: MeshOptions, addresses: MeshAddresses) -> dict[str, str]:
    """What lets an autoscaler add nodes that are like those of the mesh."""
    if not options.max_nodes:
        return {}
    return {
        "--node-provider": "local",
        "--local-max-nodes": str(options.max_nodes),
        "--local-state-dir": str(options.state_dir / "nodes"),
        "--local-triton-home": str(options.triton_home),
        "--local-slots": str(options.slots),
        "--local-autoscaler": ",".join(addresses.autoscalers),
        **_gpu_flags(options, "--local-"),
        **_volume_flags(options, "--local-"),
    }


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
        name, command, _log_file(options, name), ready_file, environment(options), stop_grace_s
    )


def _log_file(options: MeshOptions, name: str) -> Path:
    return options.state_dir / "logs" / f"{name}.log"


def environment(options: MeshOptions) -> dict[str, str]:
    """The environment of every process of the mesh."""
    return {**children.python_environment(), STATE_VARIABLE: str(options.state_dir)}
