"""Gets libpython for an interpreter without root: found here, or unpacked from the Debian package.

`apt-get download` and `dpkg -x` need no privileges; only apt's own lists and cache do, so they are
kept in a temporary directory where the system's are missing.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from forebay.local.interpreter import Interpreter, SetupError, find_library

_APT_TIMEOUT_S = 300.0


def provide(interpreter: Interpreter, into: Path) -> str:
    """Copies an interpreter's shared library into a directory; returns its file name.

    Raises:
        SetupError: if it is neither on this machine nor to be had from its package archive.
    """
    library = find_library(interpreter)
    if library is not None:
        shutil.copyfile(library, into / interpreter.library_name)
        return interpreter.library_name
    with tempfile.TemporaryDirectory(prefix="forebay-libpython-") as scratch:
        unpacked = _from_package(interpreter, Path(scratch))
        if unpacked is None:
            raise SetupError(how_to_get(interpreter))
        shutil.copyfile(unpacked, into / interpreter.library_name)
    return interpreter.library_name


def how_to_get(interpreter: Interpreter) -> str:
    """A sentence for the person who has to install the library."""
    return (
        f"{interpreter.library_name} is missing: Triton's Python backend is linked to it. Install "
        f"it (Debian, Ubuntu: `apt-get install libpython{interpreter.version}`; elsewhere a Python "
        "built with --enable-shared) and run `forebay setup` again."
    )


def _from_package(interpreter: Interpreter, scratch: Path) -> Path | None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    # Ubuntu 24.04 renamed it when its times became 64 bits wide.
    packages = [f"libpython{interpreter.version}", f"libpython{interpreter.version}t64"]
    if not _download(packages, scratch, []) and not _download_with_own_lists(packages, scratch):
        return None
    archive = next(scratch.glob("*.deb"), None)
    if archive is None or not _run(["dpkg", "-x", str(archive), str(scratch / "root")], scratch):
        return None
    return next((scratch / "root").rglob(interpreter.library_name), None)


def _download_with_own_lists(packages: list[str], scratch: Path) -> bool:
    lists, cache = scratch / "lists", scratch / "cache"
    for directory in (lists / "partial", cache / "archives" / "partial"):
        directory.mkdir(parents=True)
    options = [
        f"-oDir::State::lists={lists}",
        f"-oDir::Cache={cache}",
        "-oDebug::NoLocking=1",
        # apt drops to a user of its own that cannot enter our temporary directory.
        "-oAPT::Sandbox::User=",
        # Hooks of the image would clean the system's lists.
        "-oAPT::Update::Post-Invoke=",
        "-oAPT::Update::Post-Invoke-Success=",
    ]
    updated = _run(["apt-get", "-q", *options, "update"], scratch)
    return updated and _download(packages, scratch, options)


def _download(packages: list[str], scratch: Path, options: list[str]) -> bool:
    """Downloads the first of some packages that there is."""
    return any(
        _run(["apt-get", "-q", *options, "download", package], scratch) for package in packages
    )


def _run(command: list[str], cwd: Path) -> bool:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=_APT_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
