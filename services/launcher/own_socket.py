"""The launcher's Unix socket and its locks: one launcher for one node, and only its agent asks."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import grpc.aio

FOLDER_MODE = 0o750
SOCKET_MODE = 0o660
MAX_PATH_BYTES = 107
"""Of a Unix socket (unix(7))."""


class OwnSocket:
    """A Unix socket in a folder of its own."""

    def __init__(self, path: Path) -> None:
        """A socket that does not listen yet.

        Args:
            path: absolute.

        Raises:
            OSError: if it is too long for a socket.
        """
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise OSError(
                f"socket = {path}: a Unix socket's path has at most {MAX_PATH_BYTES} bytes; choose "
                "a shorter one"
            )
        self.path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other launchers from the socket; removes it at the end.

        Raises:
            OSError: if another launcher has it, or the folder cannot be made.
        """
        # Who may enter the folder may ask for containers: nobody else, and the group's agent.
        self.path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with alone_on(self.path.with_name(f"{self.path.name}.lock"), f"socket {self.path}"):
            # What a launcher that was killed left behind; the lock says that none is alive.
            self._remove()
            try:
                yield
            finally:
                self._remove()

    def listen(self, server: grpc.aio.Server) -> None:
        """Has a server listen on it; the owner and the group may use it.

        Raises:
            OSError: if it cannot.
        """
        # The socket is made with the mode that the umask leaves: never open for a moment.
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            server.add_insecure_port(f"unix:{self.path}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self.path}: {error}") from error
        finally:
            os.umask(before)
        self.path.chmod(SOCKET_MODE)

    def _remove(self) -> None:
        if self.path.is_socket():
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_on(path: Path, what: str) -> Iterator[None]:
    """Holds a lock file; the lock ends with the process.

    Args:
        path: of the file.
        what: what it stands for, for the message.

    Raises:
        OSError: if another launcher has it, or it is a link.
    """
    # The agent may write to that folder: a link of its would have any file emptied or made.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another launcher runs with {what}: stop it, or give this one a node, a state_dir "
                "and a socket of its own"
            ) from None
        yield
