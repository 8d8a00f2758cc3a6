"""The state directory of a local mesh: one mesh at a time, nothing left of the one before."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

LOCK_FILE = "lock"
STATE_VARIABLE = "FOREBAY_LOCAL_STATE"
"""In the environment of every process of a local mesh: its state directory."""

LEFTOVER_GRACE_S = 8.0

_AGENT = re.compile(r"(^services\.node_agent\.main|(^|/)forebay-node-agent)$")


class StateInUseError(Exception):
    """Another mesh runs on the state directory; the text has its process id."""


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Holds a state directory for this process.

    Raises:
        StateInUseError: if another process holds it.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state_dir / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise StateInUseError(
                f"a mesh already runs on {state_dir} (process {pid}). Stop it, or choose another "
                "directory with --state-dir."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def processes_of(state_dir: Path) -> list[psutil.Process]:
    """Every process that was started by a mesh on this state directory, and theirs."""
    wanted = str(state_dir)
    # A Triton is given a clean environment; its arguments name the node's directory.
    nodes = str(state_dir / "nodes") + os.sep
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error):
            if process.environ().get(STATE_VARIABLE) == wanted or (
                _is_replica(process) and any(nodes in word for word in process.cmdline())
            ):
                found.append(process)
    return found


def agents_of(state_dir: Path) -> list[psutil.Process]:
    """Node agents among `processes_of`, whoever started them."""
    found = []
    for process in processes_of(state_dir):
        with contextlib.suppress(psutil.Error):
            if any(_AGENT.search(word) for word in process.cmdline()):
                found.append(process)
    return found


def end(processes: Iterable[psutil.Process], grace_s: float) -> int:
    """Ends processes: asks, waits, kills. Returns how many there were. Blocks."""
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=grace_s)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=2)
    return len(alive)


def end_leftovers(state_dir: Path) -> int:
    """Ends what a mesh that was killed left behind, except Tritons, which their agent adopts.

    Returns how many processes that were.
    """
    return end(
        [process for process in processes_of(state_dir) if not _is_replica(process)],
        LEFTOVER_GRACE_S,
    )


def _is_replica(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("triton")
    except psutil.Error:
        return False
