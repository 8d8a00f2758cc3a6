"""The launcher's own folder in state_dir: the environments. Every function blocks on files.

state_dir is the agent's to write. An agent that somebody else has taken over could put a link where
this folder is, and the launcher, which may be root, would remove or give away what lies behind it.
So what is done there is done by a descriptor of the folder itself, which no link can turn aside.
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from services.launcher.environment_template import PACKAGES, REQUIREMENTS, SCRATCH

UNFINISHED = ".tmp"
"""What the folder of an environment that is being built ends with."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def use(directory: Path, name: str) -> bool:
    """Marks an environment as used now; False if there is none.

    Args:
        directory: the folder of environments.
        name: of the environment.
    """
    try:
        with _opened(directory) as there, _opened(name, there) as environment:
            # Somebody else's, but good to read.
            with contextlib.suppress(PermissionError):
                os.utime(environment)
            return True
    except OSError:
        return False


def prepare(folder: Path, requirements: bytes, user: int) -> None:
    """Makes the folder that an environment is built in.

    Args:
        folder: does not stay if it is there.
        requirements: content of requirements.txt.
        user: who builds, and owns what is built.

    Raises:
        OSError: if it cannot be made, or would not be this user's.
    """
    me = os.geteuid()
    if me not in (0, user):
        raise OSError(
            f"the launcher runs as user {me} and containers as {user}: run it as root or as "
            f"{user}, or set user_id to {me}"
        )
    with contextlib.suppress(FileExistsError):
        folder.parent.mkdir(mode=0o755)
    remove(folder.parent, folder.name)
    with _opened(folder.parent) as there:
        if os.fstat(there).st_uid != me:
            raise OSError(
                f"{folder.parent} belongs to user {os.fstat(there).st_uid}, and must be the "
                f"launcher's own, user {me}: remove it, and it is made anew"
            )
        with _made(folder.name, there, user) as made:
            for name in (SCRATCH, PACKAGES):
                with _made(name, made, user):
                    pass
            with os.fdopen(os.open(REQUIREMENTS, _NEW_FILE, 0o644, dir_fd=made), "wb") as file:
                file.write(requirements)
                os.fchmod(file.fileno(), 0o644)


def finish(folder: Path, name: str) -> None:
    """Gives what was built its place.

    Args:
        folder: that it was built in.
        name: of the environment, beside it.

    Raises:
        OSError: if it cannot.
    """
    remove(folder.parent, name)
    with _opened(folder.parent) as there, _opened(folder.name, there) as built:
        os.rename(PACKAGES, name, src_dir_fd=built, dst_dir_fd=there)
    use(folder.parent, name)


def remove(directory: Path, name: str) -> None:
    """Removes a folder of the environments; fine if there is none.

    Args:
        directory: the folder of environments.
        name: of the one to remove.
    """
    with contextlib.suppress(OSError), _opened(directory) as there:
        shutil.rmtree(name, ignore_errors=True, dir_fd=there)


def unfinished(directory: Path) -> list[str]:
    """Names of folders in which environments were being built."""
    return [name for name, _ in _folders(directory) if name.endswith(UNFINISHED)]


def by_use(directory: Path, used: Collection[str]) -> list[str]:
    """Names of the environments that nothing uses, that used last first.

    Args:
        directory: the folder of environments.
        used: names of those that are in use.
    """
    found = {
        name: mtime_s
        for name, mtime_s in _folders(directory)
        if name not in used and not name.endswith(UNFINISHED)
    }
    return sorted(found, key=lambda name: found[name], reverse=True)


def _folders(directory: Path) -> list[tuple[str, float]]:
    """The folders in a folder, each with when it was changed."""
    found = []
    with contextlib.suppress(OSError), _opened(directory) as there, os.scandir(there) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_mtime))
    return found


@contextlib.contextmanager
def _opened(path: Path | str, there: int | None = None) -> Iterator[int]:
    """A descriptor of a folder that is no link."""
    descriptor = os.open(path, _FOLDER, dir_fd=there)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _made(name: str, there: int, user: int) -> Iterator[int]:
    """A descriptor of a new folder that belongs to a user."""
    os.mkdir(name, dir_fd=there)
    with _opened(name, there) as made:
        if os.geteuid() == 0:
            os.fchown(made, user, user)
        yield made
