"""Prepares Triton for the `process` runtime, without root, from the wheel that carries it.

What it writes is read by services/node_agent/triton/triton_home.py:

    bin/tritonserver
    backends/python/       libtriton_python.so, triton_python_backend_stub, …_utils.py
    lib/                   libraries of the wheel, and libpython of the model interpreter
    base-env/              virtual environment with numpy<2; makes the models' environments
    manifest.json          what this was made of; written last

Everything is built in a directory beside the target and renamed: an interrupted setup leaves
nothing half.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from forebay.local import libpython
from forebay.local.interpreter import Interpreter, SetupError, find

WHEEL = "nvidia-pytriton"
WHEEL_VERSION = "0.7.0"
TRITON_VERSION = "2.51.0"
NUMPY_REQUIREMENT = "numpy>=1.26,<2"
HOME_VARIABLE = "FOREBAY_TRITON_HOME"

_INSTALL_TIMEOUT_S = 900.0
_CHECK_TIMEOUT_S = 30.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a Triton home was made of."""

    triton_version: str
    wheel_version: str
    python_version: str
    libpython: str


@dataclass(frozen=True, slots=True)
class SetupResult:
    """A prepared Triton home and whether this call made it."""

    home: Path
    manifest: Manifest
    created: bool


def default_home() -> Path:
    """Where Triton is kept: FOREBAY_TRITON_HOME, else beside this Python, else the user's data."""
    if named := os.environ.get(HOME_VARIABLE):
        return Path(named).expanduser().absolute()
    beside = Path(sys.prefix) / "share"
    user_data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    shared = sys.prefix == sys.base_prefix
    writable = os.access(beside if beside.exists() else beside.parent, os.W_OK)
    # Outside a virtual environment sys.prefix is the system's, where pip's rules hold, not ours.
    root = user_data if shared or not writable else beside
    return root / "forebay" / "triton"


def read_manifest(home: Path) -> Manifest | None:
    """The manifest of a complete Triton home; None if there is none or it is of another version."""
    try:
        return Manifest(**json.loads((home / "manifest.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_current(home: Path) -> bool:
    """Whether a Triton home is complete and what this version of Forebay would make."""
    manifest = read_manifest(home)
    if manifest is None or manifest.wheel_version != WHEEL_VERSION:
        return False
    parts = ("bin/tritonserver", f"lib/{manifest.libpython}", "base-env/bin/python")
    # A virtual environment dies with the Python it was made from: exists() follows the link.
    return all((home / part).exists() for part in parts)


def set_up(
    home: Path, python: Path | None = None, progress: Progress = lambda _: None
) -> SetupResult:
    """Makes a Triton home unless it is there already.

    Args:
        home: where; see `default_home`.
        python: interpreter for models; None finds one.
        progress: told what is being done, in a few words.

    Raises:
        SetupError: if something is missing; the text says how to get it.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot write {home}: {error.strerror}. Choose another directory with {HOME_VARIABLE}."
        ) from error
    with _only_one(home, progress):
        manifest = read_manifest(home)
        if manifest is not None and is_current(home) and _runs_on(manifest, python):
            return SetupResult(home, manifest, created=False)
        for leftover in home.parent.glob(f".{home.name}.setup-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        interpreter = find(python)
        scratch = Path(tempfile.mkdtemp(prefix=f".{home.name}.setup-", dir=home.parent))
        try:
            manifest = _build(scratch, home, interpreter, progress)
            _put_in_place(scratch, home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return SetupResult(home, manifest, created=True)


def _runs_on(manifest: Manifest, python: Path | None) -> bool:
    return python is None or find(python).version == manifest.python_version


@contextmanager
def _only_one(home: Path, progress: Progress) -> Iterator[None]:
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another setup")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(scratch: Path, home: Path, interpreter: Interpreter, progress: Progress) -> Manifest:
    new, wheel = scratch / "home", scratch / "wheel"
    environment_python = new / "base-env" / "bin" / "python"
    progress(f"making an environment for models on Python {interpreter.version}")
    _make_environment(interpreter, new / "base-env", home / "base-env")
    _pip(environment_python, [NUMPY_REQUIREMENT])
    progress("installing Triton Inference Server (about 200 MB)")
    _pip(environment_python, ["--no-deps", "--target", str(wheel), f"{WHEEL}=={WHEEL_VERSION}"])
    progress("putting Triton in place")
    _take_from_wheel(wheel, new, interpreter)
    progress(f"looking for {interpreter.library_name}")
    library = libpython.provide(interpreter, new / "lib")
    progress("checking that Triton starts")
    _check_starts(new)
    manifest = Manifest(TRITON_VERSION, WHEEL_VERSION, interpreter.version, library)
    (new / "manifest.json").write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def _make_environment(interpreter: Interpreter, directory: Path, final: Path) -> None:
    venv = [str(interpreter.executable), "-I", "-m", "venv", str(directory)]
    # Debian keeps ensurepip apart (package python3-venv): then our own pip installs the first one.
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python")]
    done = _run(venv)
    if done.returncode != 0:
        done = _run([*venv, "--clear", "--without-pip"])
        done = done if done.returncode else _run([*pip, "install", "--quiet", "pip"])
    if done.returncode != 0:
        raise SetupError(
            f"{interpreter.executable} cannot make virtual environments (Debian, Ubuntu: "
            f"`apt-get install python{interpreter.version}-venv`): {_last_line(done)}"
        )
    # It is about to be renamed: its scripts must name the place it will have.
    for file in (directory / "pyvenv.cfg", *(directory / "bin").iterdir()):
        if not file.is_symlink() and file.is_file():
            file.write_text(file.read_text().replace(str(directory), str(final)))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)


def _pip(python: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-input", *arguments],
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise SetupError(
            f"pip could not install {arguments[-1]}: {_last_line(done)}. Check the network and "
            "pip's configuration, then run `forebay setup` again."
        )


def _take_from_wheel(wheel: Path, new: Path, interpreter: Interpreter) -> None:
    server = wheel / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / interpreter.version / "triton_python_backend_stub"
    (new / "bin").mkdir()
    backend = new / "backends" / "python"
    backend.mkdir(parents=True)
    shutil.move(server / "bin" / "tritonserver", new / "bin" / "tritonserver")
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.move(server / "backends" / "python" / name, backend / name)
    shutil.move(stub, backend / stub.name)
    shutil.move(wheel / "nvidia_pytriton.libs", new / "lib")
    for program in (new / "bin" / "tritonserver", backend / stub.name):
        program.chmod(0o755)


def _check_starts(new: Path) -> None:
    """Runs what was built far enough to know that the loader finds every library."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(new / "lib")}
    for program, expected in (
        (new / "bin" / "tritonserver", "Usage: tritonserver"),
        # Without its nine arguments the stub says so; without libpython it never gets there.
        (new / "backends" / "python" / "triton_python_backend_stub", "Expected 9 arguments"),
    ):
        arguments = ["--help"] if program.name == "tritonserver" else []
        done = subprocess.run(
            [program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_CHECK_TIMEOUT_S,
        )
        if expected not in done.stdout + done.stderr:
            raise SetupError(
                f"{program.name} does not start on this machine: {_last_line(done)}. It needs "
                "x86-64 Linux with glibc 2.35 or later; `forebay doctor` says what is missing."
            )


def _put_in_place(scratch: Path, home: Path) -> None:
    if home.exists():
        home.rename(scratch / "old")
    (scratch / "home").rename(home)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else f"exit code {done.returncode}"
