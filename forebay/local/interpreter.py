"""Finds the Python that runs models, and the shared library Triton's Python backend needs of it.

Triton's Python backend embeds an interpreter: its stub is linked to `libpython3.X.so.1.0`, and it
was built with a pybind11 that returns empty tensors, silently, with numpy 2. So models run on a
Python that still has wheels of numpy 1: 3.11 or 3.12.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODEL_PYTHONS = ("3.12", "3.11")
_PROBE = """
import json, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "executable": getattr(sys, "_base_executable", sys.executable),
    "libdir": sysconfig.get_config_var("LIBDIR") or "",
    "multiarch": sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu",
    "base_prefix": sys.base_prefix,
}))
"""
_PROBE_TIMEOUT_S = 20.0


class SetupError(Exception):
    """Something a person has to do first; the text says what."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can run models.

    Attributes:
        executable: the interpreter, outside any virtual environment.
        version: minor version, such as `3.11`.
        library_directories: where its libpython may be, likeliest first.
    """

    executable: Path
    version: str
    library_directories: tuple[Path, ...]

    @property
    def library_name(self) -> str:
        """File name of the shared library that Triton's stub is linked to."""
        return f"libpython{self.version}.so.1.0"


def probe(executable: Path) -> Interpreter | None:
    """Asks a Python about itself; None if it does not run."""
    try:
        # -I: neither the current directory nor the user's environment may change the answer.
        done = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    directories = (
        Path(found["libdir"]),
        Path(found["base_prefix"]) / "lib",
        Path("/usr/lib") / found["multiarch"],
        Path("/lib") / found["multiarch"],
        Path("/usr/lib64"),
        Path("/usr/local/lib"),
    )
    return Interpreter(Path(found["executable"]), found["version"], directories)


def find(requested: Path | None = None) -> Interpreter:
    """The interpreter models will run on.

    Args:
        requested: use this one; None looks at the running one, then on PATH.

    Raises:
        SetupError: if there is none that can run models.
    """
    if requested is not None:
        return _check_requested(requested)
    for candidate in _candidates():
        interpreter = probe(candidate)
        if interpreter is not None and interpreter.version in MODEL_PYTHONS:
            return interpreter
    running = ".".join(str(part) for part in sys.version_info[:2])
    raise SetupError(
        f"Triton's Python backend needs Python {' or '.join(MODEL_PYTHONS)} for models; this is "
        f"{running} and neither is on PATH. Install one (Debian, Ubuntu: "
        "`apt-get install python3.12 python3.12-venv`) or name it with "
        "`forebay setup --python PATH`."
    )


def _check_requested(requested: Path) -> Interpreter:
    interpreter = probe(requested)
    if interpreter is None:
        raise SetupError(f"{requested} does not run. Name a Python {' or '.join(MODEL_PYTHONS)}.")
    if interpreter.version not in MODEL_PYTHONS:
        raise SetupError(
            f"{requested} is Python {interpreter.version}; Triton's Python backend needs "
            f"{' or '.join(MODEL_PYTHONS)} for models."
        )
    return interpreter


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for version in MODEL_PYTHONS:
        found = shutil.which(f"python{version}")
        if found:
            yield Path(found)


def find_library(interpreter: Interpreter) -> Path | None:
    """The interpreter's shared library on this machine; None if it has none."""
    name = interpreter.library_name
    for directory in interpreter.library_directories:
        if (directory / name).is_file():
            return directory / name
    return _from_loader_cache(name)


def _from_loader_cache(name: str) -> Path | None:
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        done = subprocess.run(
            [ldconfig, "-p"], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    for line in done.stdout.splitlines():
        entry, _, path = line.partition(" => ")
        if entry.split(maxsplit=1)[:1] == [name] and Path(path).is_file():
            return Path(path)
    return None
