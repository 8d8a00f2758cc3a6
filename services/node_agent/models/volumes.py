"""The volumes of a replica: what its node offers under the names that its deployment uses.

A deployment says names and never paths; only the node's own settings say where a volume is. How a
replica gets to see it is its runtime's: a process gets the path itself and a link in the replica's
directory, and cannot be kept from writing to what this user may write to; a container has it
mounted, from where the launcher's own settings say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forebay.v1.deployment_pb2 import VolumeMount
from services.wire import deployment_words as words
from services.wire.offered_volumes import OfferedVolume, check_there

LINKS = "volumes"
"""Folder in a replica's directory with a link to each of its volumes."""


class VolumeError(OSError):
    """A replica cannot see one of its volumes; the text says why."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume that a replica sees.

    Attributes:
        name: its name.
        host_path: where it is on this machine.
        read_only: the replica may only read it: it asked for no more, or the node offers no more.
    """

    name: str
    host_path: Path
    read_only: bool


def mounts_of(
    wanted: Iterable[VolumeMount], offered: Mapping[str, OfferedVolume], seen: bool = True
) -> tuple[Mount, ...]:
    """Where each volume of a replica is. Blocks shortly.

    Args:
        wanted: as assigned.
        offered: what this node offers now, by name.
        seen: whether this process sees the folders; those of containers only the launcher may.

    Raises:
        VolumeError: if the node does not offer one as it is wanted, or it is not there.
    """
    return tuple(_mount(volume, offered.get(volume.name), seen) for volume in wanted)


def link(directory: Path, mounts: Sequence[Mount]) -> None:
    """Makes `volumes/{name}` in a replica's directory a link to each volume. Blocks shortly.

    Raises:
        OSError: if the links cannot be made.
    """
    links = directory / LINKS
    links.mkdir(parents=True, exist_ok=True)
    for old in links.iterdir():
        if old.is_symlink():
            old.unlink()
    for mount in mounts:
        (links / mount.name).symlink_to(mount.host_path)


def variables(mounts: Iterable[Mount]) -> dict[str, str]:
    """What tells a replica where its volumes are, as it sees them."""
    found: dict[str, str] = {}
    for mount in mounts:
        found[words.volume_variable(mount.name)] = str(mount.host_path)
        if mount.read_only:
            found[words.read_only_variable(mount.name)] = "1"
    return found


def _mount(wanted: VolumeMount, offered: OfferedVolume | None, seen: bool) -> Mount:
    if offered is None:
        raise VolumeError(
            f"this node does not offer the volume {wanted.name} any more: add it to the agent's "
            "setting volumes"
        )
    if offered.read_only and not wanted.read_only:
        raise VolumeError(
            f"this node offers the volume {wanted.name} for reading only: write read_only: true in "
            "the deployment's file, or offer it for writing"
        )
    try:
        if seen:
            check_there(offered)
    except ValueError as error:
        raise VolumeError(str(error)) from error
    return Mount(wanted.name, offered.path, wanted.read_only or offered.read_only)
