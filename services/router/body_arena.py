"""Keeps large bodies out of the queue: a shared memory object that Triton reads directly.

One copy in, none out: the router writes a body here and queues a claim; an agent on this host hands
Triton the claim through Triton's system shared memory extension; an agent elsewhere asks for the
bytes. A block is given out again only when nobody can still read it: after the reply, or, if the
call ended without one, after the last moment an attempt could run.
"""

import fcntl
import heapq
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  POSIX shared memory on Linux
PREFIX = "forebay-"
PAGE_BYTES = 4096
_NAME = re.compile(rf"{PREFIX}(\d+)-(\d+)-[0-9a-f]{{16}}")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the arena: where it starts and how many bytes were asked for."""

    offset: int
    length: int


class BlockMap:
    """Which parts of an arena are free: first fit, so that low pages are used again and again."""

    def __init__(self, size: int) -> None:
        """A map of `size` bytes, all free."""
        self._free: list[tuple[int, int]] = [(0, size)] if size else []

    def allocate(self, length: int) -> Block | None:
        """The first free block of at least `length` bytes, in whole pages; None if none fits."""
        wanted = _pages(length)
        for index, (offset, free) in enumerate(self._free):
            if free >= wanted:
                if free == wanted:
                    del self._free[index]
                else:
                    self._free[index] = (offset + wanted, free - wanted)
                return Block(offset, length)
        return None

    def release(self, block: Block) -> None:
        """Gives a block back and joins it with its free neighbours."""
        start, end = block.offset, block.offset + _pages(block.length)
        merged: list[tuple[int, int]] = []
        for offset, free in self._free:
            if offset + free == start:
                start = offset
            elif offset == end:
                end = offset + free
            else:
                merged.append((offset, free))
        merged.append((start, end - start))
        merged.sort()
        self._free = merged


class BodyArena:
    """Bodies in shared memory, until nobody can read them any more."""

    def __init__(self, size: int) -> None:
        """Makes the shared memory object.

        Args:
            size: bytes; 0, or no shared memory on this machine, makes an arena that takes nothing.
        """
        self.name = ""
        self.size = 0
        self._descriptor = -1
        if size and SHARED_MEMORY.is_dir():
            remove_orphans()
            self.name, self._descriptor = _create()
            os.ftruncate(self._descriptor, size)
            self.size = size
        self._blocks = BlockMap(self.size)
        self._quarantined: list[tuple[float, int, Block]] = []
        self._turn = 0

    def store(self, body: bytes, now_s: float) -> Block | None:
        """Writes a body; None if there is no room for it now."""
        while self._quarantined and self._quarantined[0][0] <= now_s:
            self._blocks.release(heapq.heappop(self._quarantined)[2])
        block = self._blocks.allocate(len(body))
        if block is None:
            return None
        try:
            # Not through a mapping: a full /dev/shm is a SIGBUS there. Here it is an error if not
            # a page is left, and a short count if some are.
            written = os.pwrite(self._descriptor, body, block.offset)
        except OSError as error:
            log.warning("arena.full", error=error.strerror)
        else:
            if written == len(body):
                return block
            log.warning("arena.full", error=f"{written} of {len(body)} bytes were written")
        self._blocks.release(block)
        return None

    def load(self, block: Block) -> bytes:
        """The body in a block."""
        return os.pread(self._descriptor, block.length, block.offset)

    def release(self, block: Block) -> None:
        """Gives a block back at once: its request was answered and nothing reads it."""
        self._blocks.release(block)

    def release_at(self, block: Block, when_s: float) -> None:
        """Gives a block back later: an attempt may read it until `when_s` (monotonic)."""
        self._turn += 1
        heapq.heappush(self._quarantined, (when_s, self._turn, block))

    def close(self) -> None:
        """Removes the shared memory object."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            (SHARED_MEMORY / self.name).unlink(missing_ok=True)
            self._descriptor = -1


def remove_orphans() -> None:
    """Removes the objects of routers of this user that were killed.

    A router holds a lock on its object for as long as it lives; the kernel lets go of it with the
    process. Process ids would not tell: containers can share /dev/shm and number their processes
    apart.
    """
    for path in SHARED_MEMORY.glob(f"{PREFIX}*"):
        if not _NAME.fullmatch(path.name):
            continue
        try:
            if _remove_if_unlocked(path):
                log.info("arena.removed_orphan", name=path.name)
        except FileNotFoundError:
            # Another router was quicker.
            continue
        except OSError as error:
            log.warning("arena.orphan_stays", name=path.name, error=error.strerror)


def _remove_if_unlocked(path: Path) -> bool:
    found = path.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _create() -> tuple[str, int]:
    """Makes a locked object; returns its name and descriptor."""
    while True:
        name = f"{PREFIX}{os.getpid()}-{_start_ticks()}-{secrets.token_hex(8)}"
        descriptor = os.open(SHARED_MEMORY / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        # Another router that starts took it for an orphan before it was locked.
        os.close(descriptor)


def _start_ticks() -> int:
    """When this process started, in clock ticks since boot: for whoever reads the names."""
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def _pages(length: int) -> int:
    return max(1, -(-length // PAGE_BYTES)) * PAGE_BYTES
