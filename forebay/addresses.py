"""Where the mesh is: a flag, else the environment, else the mesh running here, else a default."""

import json
import os
from pathlib import Path

from services.runtime import ports

ROUTER = "router"
AUTOSCALER = "autoscaler"
METRICS = "metrics"

MESH_FILE = "mesh.json"
STATE_DIR_VARIABLE = "FOREBAY_STATE_DIR"

_DEFAULTS = {ROUTER: ports.ROUTER, AUTOSCALER: ports.AUTOSCALER, METRICS: ports.METRICS}


def variable(service: str) -> str:
    """The environment variable that names a service's address, such as FOREBAY_ROUTER."""
    return f"FOREBAY_{service.upper()}"


def default_state_dir() -> Path:
    """Where a local mesh keeps its state: FOREBAY_STATE_DIR, else in the user's state directory."""
    if named := os.environ.get(STATE_DIR_VARIABLE):
        return Path(named).expanduser().absolute()
    root = os.environ.get("XDG_STATE_HOME")
    return (Path(root) if root else Path.home() / ".local" / "state") / "forebay"


def running_mesh(state_dir: Path) -> dict[str, str]:
    """Addresses of the local mesh that runs on a state directory; empty if none does."""
    try:
        mesh = json.loads((state_dir / MESH_FILE).read_text())
        # A killed mesh leaves its file behind, and its processes end with it.
        os.kill(int(mesh["pid"]), 0)
    except PermissionError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {key: value for key, value in mesh.items() if isinstance(value, str)}


def resolve(service: str, explicit: str | None = None, state_dir: Path | None = None) -> str:
    """Address of a service of the mesh as `host:port`.

    Args:
        service: ROUTER, AUTOSCALER or METRICS.
        explicit: wins over everything, if given.
        state_dir: of the local mesh; None means `default_state_dir()`.
    """
    found = explicit or os.environ.get(variable(service))
    if not found:
        found = running_mesh(state_dir or default_state_dir()).get(service, _DEFAULTS[service])
    return found
