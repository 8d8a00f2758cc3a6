"""Keeps large bodies out of the queue: a shared memory object that Triton reads directly.

One copy in, none out: the router writes a body here and queues a claim; an agent on this host hands
Triton the claim through Triton's system shared memory extension; an agent elsewhere asks for the
bytes. A block is given out again only when nobody can still read it: after the reply, or, if the
call ended without one, after the last moment an attempt could run.
"""

import heapq
import os
import re
import secrets
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
            self.name = f"{PREFIX}{os.getpid()}-{_start_ticks(os.getpid())}-{secrets.token_hex(8)}"
            self._descriptor = os.open(
                SHARED_MEMORY / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600
            )
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
            # Not through a mapping: a full /dev/shm is an error here and a SIGBUS there.
            os.pwrite(self._descriptor, body, block.offset)
        except OSError as error:
            log.warning("arena.full", error=error.strerror)
            self._blocks.release(block)
            return None
        return block

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
    """Removes the objects of routers that were killed."""
    for path in SHARED_MEMORY.glob(f"{PREFIX}*"):
        match = _NAME.fullmatch(path.name)
        if match and _start_ticks(int(match.group(1))) != int(match.group(2)):
            path.unlink(missing_ok=True)
            log.info("arena.removed_orphan", name=path.name)


def _start_ticks(pid: int) -> int:
    """When a process started, which tells it from a later one of the same id; -1 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def _pages(length: int) -> int:
    return max(1, -(-length // PAGE_BYTES)) * PAGE_BYTES
