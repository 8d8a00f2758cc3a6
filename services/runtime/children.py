"""The environment in which a child process finds the same code as this one."""

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def python_environment() -> dict[str, str]:
    """This process's environment; of a checkout, which need not be installed, with its root."""
    environment = dict(os.environ)
    if (_ROOT / "pyproject.toml").is_file():
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{others}" if others else str(_ROOT)
    return environment
