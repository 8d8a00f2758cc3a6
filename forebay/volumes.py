"""Volumes: folders that all replicas of a deployment share, found by name.

    volume("data") / "in.jsonl"              # inside a replica, and on a machine with a local mesh
    resolve("volume://data/in.jsonl")        # what a command line is given

A replica finds its volumes in its environment. Elsewhere they are those of the local mesh that
runs here, unless FOREBAY_VOLUMES says otherwise: `data=/srv/data,weights=/srv/weights:ro`.
"""

import json
import os
from pathlib import Path

from forebay import addresses
from services.wire import deployment_words as words
from services.wire.names import quoted
from services.wire.offered_volumes import OfferedVolume, offered, parse

SCHEME = "volume://"
VARIABLE = "FOREBAY_VOLUMES"
"""Environment variable with the volumes of this machine, `name=/path` or `name=/path:ro` each."""


class VolumeError(LookupError):
    """There is no such volume here, or it cannot be used so; the text says what to do."""


def is_volume(location: str) -> bool:
    """Whether a location is in a volume rather than a path."""
    return location.startswith(SCHEME)


def resolve(location: str, state_dir: Path | None = None, *, writing: bool = False) -> Path:
    """Where a file or folder of a volume is on this machine; it need not exist.

    Args:
        location: `volume://{name}/{path in the volume}`.
        state_dir: of the local mesh; None means the usual one.
        writing: whether it is to be written.

    Raises:
        VolumeError: if the volume is not known here, is offered for reading only and is to be
            written, or the path leads out of it, by `..` or by a link.
    """
    if not is_volume(location):
        raise VolumeError(f"{quoted(location)} is not in a volume: write {SCHEME}name/path")
    name, _, inside = location.removeprefix(SCHEME).partition("/")
    found = _find(name, state_dir)
    if writing and found.read_only:
        raise VolumeError(f"{location}: the volume {name} may only be read here")
    try:
        root = found.path.resolve()
        path = (root / inside.lstrip("/")).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        # Links in a circle, or a NUL.
        raise VolumeError(f"{quoted(location)} is no path: {error}") from error
    if not path.is_relative_to(root):
        raise VolumeError(f"{location}: this leads out of the volume {name}; name what is in it")
    return path


def volume(name: str) -> Path:
    """The folder of a volume: inside a replica its own, elsewhere that of this machine.

    Raises:
        VolumeError: if there is none of that name.
    """
    path = os.environ.get(words.volume_variable(name)) if words.is_volume(name) else None
    return Path(path) if path else _find(name, None).path


def here(state_dir: Path | None = None) -> dict[str, OfferedVolume]:
    """The volumes of this machine by name: of FOREBAY_VOLUMES, else of the local mesh.

    Args:
        state_dir: of the local mesh; None means the usual one.

    Raises:
        VolumeError: if FOREBAY_VOLUMES is not legal.
    """
    said = os.environ.get(VARIABLE)
    if not said:
        return _of_mesh(state_dir or addresses.default_state_dir())
    try:
        return offered(parse(item.strip() for item in said.split(",") if item.strip()))
    except ValueError as error:
        raise VolumeError(f"{VARIABLE}: {error}") from error


def _find(name: str, state_dir: Path | None) -> OfferedVolume:
    if not words.is_volume(name):
        raise VolumeError(f"{quoted(name)} cannot name a volume: a name is {words.LEGAL_VOLUME}")
    known = here(state_dir)
    found = known.get(name)
    if found is None:
        others = f"; there are {', '.join(sorted(known))}" if known else ""
        raise VolumeError(
            f"no volume {name} is known on this machine{others}. Start the mesh with `forebay up "
            f"--volume {name}`, set {VARIABLE}={name}=/path, or, in a replica, name it under "
            "volumes in the deployment's file"
        )
    return found


def _of_mesh(state_dir: Path) -> dict[str, OfferedVolume]:
    if not addresses.running_mesh(state_dir):
        return {}
    try:
        return offered(json.loads((state_dir / addresses.MESH_FILE).read_text())["volumes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Of a mesh that was started by another version.
        return {}
