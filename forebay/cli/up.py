"""`forebay up` and `forebay setup`: Triton and the mesh on this machine."""

import asyncio
import ipaddress
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forebay.cli.failure import INTERRUPTED, USAGE, CliError
from forebay.cli.output import Output, Progress, print_json, print_table, progress, say
from forebay.cli.up_options import NodeProvider
from forebay.local import triton_setup
from forebay.local.interpreter import SetupError
from forebay.local.mesh import LocalMesh, MeshError
from forebay.local.programs import MeshOptions
from forebay.local.state import StateInUseError
from services.runtime.ports import AddressError, is_loopback
from services.wire.offered_volumes import READ_ONLY_SUFFIX, check_there, offered, parse


def set_up(home: Path | None, python: Path | None, output: Output) -> None:
    """Prepares Triton and says where.

    Raises:
        CliError: if something is missing.
    """
    with progress("looking for Triton") as tell:
        result = provide_triton(home or triton_setup.default_home(), python, tell)
    said = "is prepared" if result.created else "was prepared already"
    say(f"Triton {result.manifest.triton_version} {said} in {result.home}")
    if output is Output.JSON:
        manifest = asdict(result.manifest)
        print_json({"home": str(result.home), "created": result.created, **manifest})


def provide_triton(home: Path, python: Path | None, tell: Progress) -> triton_setup.SetupResult:
    """Prepares Triton unless it is there already.

    Raises:
        CliError: if something is missing.
    """
    try:
        return triton_setup.set_up(home, python, tell)
    except SetupError as error:
        raise CliError(str(error)) from error


DEFAULT_MAX_NODES = 4


def check_gpus(gpus_per_node: int, simulated: bool, product: str | None) -> None:
    """Checks what was said of GPUs.

    Raises:
        CliError: if GPUs are asked for that nobody can make up or find.
    """
    if gpus_per_node and not simulated:
        raise CliError(
            f"--gpus-per-node {gpus_per_node} is for simulated GPUs: add --simulated-gpus. The "
            "GPUs of this machine are found by themselves, by NVML",
            USAGE,
        )
    if simulated and not gpus_per_node:
        raise CliError("--simulated-gpus: say how many with --gpus-per-node, 1 to 16", USAGE)
    if product is not None and not simulated:
        raise CliError(
            f"--gpu-product {product!r} is for simulated GPUs: add --simulated-gpus", USAGE
        )


def nodes_to_add(provider: NodeProvider, max_nodes: int | None) -> int:
    """How many nodes the autoscaler may add.

    Raises:
        CliError: if a number was given and nobody may add any.
    """
    if provider == "local":
        return DEFAULT_MAX_NODES if max_nodes is None else max_nodes
    if max_nodes is not None:
        raise CliError(f"--max-nodes {max_nodes}: add --node-provider local", USAGE)
    return 0


def volumes_of(items: Sequence[str], state_dir: Path) -> dict[str, str]:
    """The volumes that `--volume` names, by name, as node agents take them.

    Args:
        items: `name`, `name=folder`, either with `:ro` after it. A folder may be relative.
        state_dir: has the folders of those that name none; they are made.

    Raises:
        CliError: if one is not legal, or its folder cannot be used.
    """
    written: list[str] = []
    for item in items:
        text = item.removesuffix(READ_ONLY_SUFFIX)
        name, given, folder = text.partition("=")
        path = Path(folder).expanduser().absolute() if folder else state_dir / "volumes" / name
        if given and not folder:
            raise CliError(f"--volume {item}: name a folder after =, or leave = out", USAGE)
        written.append(f"{name}={path}{item[len(text) :]}")
    try:
        found = offered(parse(written))
        for volume in found.values():
            if volume.path.parent == state_dir / "volumes":
                volume.path.mkdir(parents=True, exist_ok=True)
            check_there(volume)
    except ValueError as error:
        raise CliError(f"--volume: {error}", USAGE) from error
    except OSError as error:
        raise CliError(
            f"--volume: cannot make {error.filename}: {error.strerror}", USAGE
        ) from error
    return {name: volume.written for name, volume in found.items()}


def autoscaler_flags(
    policies_dir: Path | None, callback_secret_file: Path | None, callback_networks: Sequence[str]
) -> dict[str, str]:
    """Flags of the autoscalers for what is said of policies and callbacks.

    Raises:
        CliError: if a network is none.
    """
    for network in callback_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise CliError(
                f"--callback-network {network}: {error}; write it as 127.0.0.0/8", USAGE
            ) from error
    flags = {
        "--policies-dir": str(policies_dir) if policies_dir else "",
        "--callback-secret-file": str(callback_secret_file) if callback_secret_file else "",
        "--callback-allowed-networks": ",".join(callback_networks),
    }
    return {flag: value for flag, value in flags.items() if value}


async def up(options: MeshOptions, output: Output) -> None:
    """Runs the mesh in the foreground until it is told to stop.

    Raises:
        CliError: if it does not come up, or had to be killed.
    """
    if not triton_setup.is_current(options.triton_home):
        with progress("looking for Triton") as tell:
            await asyncio.to_thread(provide_triton, options.triton_home, None, tell)
    mesh = LocalMesh(options, say)
    async with _told_to_stop(mesh) as told:
        await _start(mesh, told)
        if not told.is_set():
            _print_addresses(mesh, output)
            await told.wait()
        say("stopping (Ctrl-C again kills everything at once)")
        await mesh.stop()
        say("stopped")


@asynccontextmanager
async def _told_to_stop(mesh: LocalMesh) -> AsyncIterator[asyncio.Event]:
    """An event set by the first SIGINT or SIGTERM; the second kills everything."""
    told = asyncio.Event()

    def tell() -> None:
        if told.is_set():
            say("killing everything")
            mesh.kill_all()
        told.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, tell)
    try:
        yield told
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _start(mesh: LocalMesh, told: asyncio.Event) -> None:
    """Starts the mesh, or gives up as soon as it is told to stop."""
    with progress(f"starting a mesh in {mesh.options.state_dir}"):
        starting = asyncio.create_task(start(mesh))
        waiting = asyncio.create_task(told.wait())
        try:
            await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                return
        finally:
            waiting.cancel()
            starting.cancel()
            await asyncio.gather(waiting, starting, return_exceptions=True)
        raise CliError("interrupted while starting", INTERRUPTED)


async def start(mesh: LocalMesh) -> None:
    """Starts a mesh.

    Raises:
        CliError: if it does not come up.
    """
    try:
        await mesh.start()
    except (StateInUseError, AddressError) as error:
        raise CliError(str(error), USAGE) from error
    except MeshError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(
            f"cannot keep state in {mesh.options.state_dir}: {error.strerror}. Choose another "
            "directory with --state-dir.",
            USAGE,
        ) from error


def _print_addresses(mesh: LocalMesh, output: Output) -> None:
    listening: dict[str, Any] = asdict(mesh.addresses)
    listening.pop("nats")
    options = mesh.options
    if output is Output.JSON:
        has = {"nodes": options.nodes, "volumes": dict(options.volumes)}
        print_json({**listening, **has, "state_dir": str(options.state_dir)})
    else:
        others = listening.pop("autoscalers")[1:]
        rows = [(name, address, _scope(address)) for name, address in listening.items()]
        rows += [("autoscaler, second", address, _scope(address)) for address in others]
        each = f"{options.slots} CPU slots each"
        if options.gpus_per_node:
            each += f", {options.gpus_per_node} SIMULATED GPU(s) each, which are the CPU"
        rows.append(("nodes", str(options.nodes), each))
        if options.max_nodes:
            rows.append(("more nodes", f"up to {options.max_nodes}", "as replicas need them"))
        rows += [("volume", name, written) for name, written in options.volumes.items()]
        print_table(("MESH", "ADDRESS", ""), rows)
    say(f"\nstate and logs: {options.state_dir}")
    say("deploy a model with `forebay deploy FILE` in another terminal; Ctrl-C stops everything")


def _scope(address: str) -> str:
    return "this machine only" if is_loopback(address) else "OPEN TO THE NETWORK, without a login"
