"""Triton as `forebay setup` prepared it for the process runtime: where its parts are.

bin/tritonserver    backends/python/…    lib/…    base-env/    manifest.json
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class TritonHomeError(Exception):
    """Triton cannot be run from here; the text says how to mend it."""


@dataclass(frozen=True, slots=True)
class TritonHome:
    """A prepared Triton.

    Attributes:
        directory: the home.
        backends: this agent's own copy of the backends.
    """

    directory: Path
    backends: Path

    @classmethod
    def open(cls, directory: Path, state_dir: Path) -> "TritonHome":
        """Checks a home and copies its backends.

        Triton runs chmod on the Python backend's stub at every load, which works only for the
        file's owner: hence the copy.

        Raises:
            TritonHomeError: if something is missing.
        """
        for part in ("manifest.json", "bin/tritonserver", "backends/python", "lib", "base-env"):
            if not (directory / part).exists():
                raise TritonHomeError(
                    f"there is no Triton in {directory} ({part} is missing): run `forebay setup`, "
                    "or name its folder with --triton-home"
                )
        backends = state_dir / "backends"
        shutil.rmtree(backends, ignore_errors=True)
        shutil.copytree(
            directory / "backends", backends, ignore=shutil.ignore_patterns("__pycache__")
        )
        return cls(directory.resolve(), backends.resolve())

    @property
    def binary(self) -> Path:
        """The server."""
        return self.directory / "bin" / "tritonserver"

    @property
    def base_environment(self) -> Path:
        """The Python environment of models without requirements."""
        return self.directory / "base-env"

    def process_environment(
        self, python_environment: Path, variables: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Environment variables for a Triton whose models run in a Python environment.

        What configures our own processes is left out: credentials are none of a model's business.

        Args:
            python_environment: what the model's Python code runs in.
            variables: of the replica's own; a PATH or LD_LIBRARY_PATH among them comes after what
                Triton needs there.
        """
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("FOREBAY_", "OTEL_", "PYTHON", "VIRTUAL_ENV"))
        }
        kept |= variables or {}
        path = kept.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        libraries = [str(self.directory / "lib"), kept.get("LD_LIBRARY_PATH", "")]
        return {
            **kept,
            "PATH": f"{python_environment / 'bin'}:{path}",
            "VIRTUAL_ENV": str(python_environment),
            "LD_LIBRARY_PATH": ":".join(part for part in libraries if part),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
