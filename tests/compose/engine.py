"""The Docker daemon that the compose tests use, by its own command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_S = 900.0


def why_not() -> str:
    """Why the tests cannot run here; empty if they can."""
    if shutil.which("docker") is None:
        return "there is no `docker` command: install Docker to run the compose tests"
    try:
        said = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return "the Docker daemon does not answer within 20 s"
    if said.returncode:
        return f"no Docker daemon answers: {said.stderr.strip().splitlines()[-1]}"
    return ""


def docker(*words: str | Path, timeout_s: float = 120.0) -> str:
    """Runs `docker …`; returns what it writes.

    Raises:
        AssertionError: if it fails, with what it says.
    """
    # BuildKit is not everywhere, and the Dockerfiles do without.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment,
    )
    assert done.returncode == 0, f"docker {words[0]} failed: {done.stderr[-3000:]}"
    return done.stdout.strip()


def compose_command() -> list[str]:
    """Docker Compose v2 or later: beside this interpreter, or as Docker's plugin."""
    beside = Path(sys.executable).with_name("docker-compose")
    return [str(beside)] if beside.exists() else ["docker", "compose"]


def has_image(name: str) -> bool:
    """Whether the daemon has an image."""
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0


def socket_path() -> str:
    """The daemon's socket."""
    return os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock"
