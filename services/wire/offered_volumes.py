"""Folders that a machine offers as volumes, as settings write them: `/path` or `/path:ro`."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.wire import deployment_words as words
from services.wire.names import quoted

MAX_OFFERED = 64
"""Volumes of one machine."""

READ_ONLY_SUFFIX = ":ro"


@dataclass(frozen=True, slots=True)
class OfferedVolume:
    """A folder of this machine.

    Attributes:
        name: what deployments call it.
        path: absolute; where it is on this machine.
        read_only: it may be read and not written.
    """

    name: str
    path: Path
    read_only: bool = False

    @property
    def written(self) -> str:
        """Path and kind as settings write them."""
        return f"{self.path}{READ_ONLY_SUFFIX if self.read_only else ''}"


def offered(values: Mapping[str, str]) -> dict[str, OfferedVolume]:
    """The volumes that settings name, by name.

    Args:
        values: an absolute path by name; `:ro` after it offers it for reading only.

    Raises:
        ValueError: if there are too many, or one has no legal name or no absolute path.
    """
    if len(values) > MAX_OFFERED:
        raise ValueError(f"{len(values)} volumes; a node offers at most {MAX_OFFERED}")
    return {name: _offered(name, value) for name, value in values.items()}


def parse(items: Iterable[str]) -> dict[str, str]:
    """Values for `offered` from items `name=/path`, `name=/path:ro` or `name`.

    Raises:
        ValueError: if a name is there twice.
    """
    found: dict[str, str] = {}
    for item in items:
        name, _, value = item.partition("=")
        if name in found:
            raise ValueError(f"the volume {name} is named twice; leave one of them out")
        found[name] = value
    return found


def check_there(volume: OfferedVolume) -> None:
    """Checks that a volume can be used as it is offered. Blocks shortly.

    Raises:
        ValueError: if it is no folder, or this user may not do with it what is offered.
    """
    path = volume.path
    if not path.is_dir():
        why = "is not a folder" if path.exists() else "is not there"
        raise ValueError(f"the volume {volume.name}: {path} {why}; make it, or name another")
    if not os.access(path, os.R_OK | os.X_OK):
        raise ValueError(f"the volume {volume.name}: this user may not read {path}")
    if not volume.read_only and not os.access(path, os.W_OK):
        raise ValueError(
            f"the volume {volume.name}: this user may not write to {path}; write "
            f"{path}{READ_ONLY_SUFFIX} to offer it for reading only"
        )


def _offered(name: str, value: str) -> OfferedVolume:
    if not words.is_volume(name):
        raise ValueError(f"{quoted(name)} cannot name a volume: a name is {words.LEGAL_VOLUME}")
    read_only = value.endswith(READ_ONLY_SUFFIX)
    path = Path(value.removesuffix(READ_ONLY_SUFFIX))
    if not path.is_absolute():
        raise ValueError(
            f"the volume {name} = {value!r}: it needs an absolute path, such as /srv/{name}, or "
            f"/srv/{name}{READ_ONLY_SUFFIX} to offer it for reading only"
        )
    return OfferedVolume(name, path, read_only)
