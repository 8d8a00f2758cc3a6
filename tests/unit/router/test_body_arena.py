"""Where large bodies are kept."""

import itertools
import os
import random
import subprocess
import sys

import pytest

from services.router.body_arena import (
    PAGE_BYTES,
    PREFIX,
    SHARED_MEMORY,
    Block,
    BlockMap,
    BodyArena,
    remove_orphans,
)


def test_blocks_never_overlap_and_all_comes_back() -> None:
    blocks = BlockMap(64 * PAGE_BYTES)
    draw = random.Random(1)
    held: list[Block] = []
    for _ in range(5000):
        if held and draw.random() < 0.5:
            blocks.release(held.pop(draw.randrange(len(held))))
        else:
            block = blocks.allocate(draw.randrange(1, 9 * PAGE_BYTES))
            if block is not None:
                held.append(block)
        spans = sorted((b.offset, b.offset + b.length) for b in held)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    for block in held:
        blocks.release(block)
    assert blocks.allocate(64 * PAGE_BYTES) == Block(0, 64 * PAGE_BYTES)


def test_what_does_not_fit_is_not_taken() -> None:
    arena = BodyArena(4 * PAGE_BYTES)
    try:
        assert arena.store(b"x" * 5 * PAGE_BYTES, now_s=0) is None
        block = arena.store(b"abc", now_s=0)
        assert block is not None
        assert arena.load(block) == b"abc"
    finally:
        arena.close()


def test_a_block_that_may_still_be_read_is_not_given_out_before_its_time() -> None:
    arena = BodyArena(PAGE_BYTES)
    try:
        block = arena.store(b"first", now_s=0)
        assert block is not None
        arena.release_at(block, when_s=10)
        assert arena.store(b"second", now_s=9.9) is None
        assert arena.load(block) == b"first"
        assert arena.store(b"second", now_s=10.0) is not None
    finally:
        arena.close()


def test_closing_removes_the_shared_memory() -> None:
    arena = BodyArena(PAGE_BYTES)
    assert (SHARED_MEMORY / arena.name).exists()
    arena.close()
    assert not (SHARED_MEMORY / arena.name).exists()


def test_the_arena_of_a_killed_router_is_removed_by_the_next() -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os\nfrom services.router.body_arena import BodyArena\n"
            "print(BodyArena(4096).name, flush=True)\nos.kill(os.getpid(), 9)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    orphan = SHARED_MEMORY / killed.stdout.strip()
    assert orphan.exists()
    mine = BodyArena(PAGE_BYTES)
    try:
        assert not orphan.exists()
        assert (SHARED_MEMORY / mine.name).exists()
    finally:
        mine.close()


def test_the_arena_of_a_living_router_stays_whatever_its_process_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As from a container with process ids of its own, where this id is nobody's.
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)
    mine = BodyArena(PAGE_BYTES)
    monkeypatch.undo()
    try:
        remove_orphans()
        assert (SHARED_MEMORY / mine.name).exists()
    finally:
        mine.close()


def test_an_object_that_cannot_be_removed_does_not_stop_the_router(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orphan = SHARED_MEMORY / f"{PREFIX}1-1-{'0' * 16}"
    orphan.touch()

    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            remove_orphans()
        assert orphan.exists()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getuid", lambda: 4_000_000)
            remove_orphans()
        assert orphan.exists(), "it is another user's"
        remove_orphans()
        assert not orphan.exists()
    finally:
        orphan.unlink(missing_ok=True)


def test_a_body_that_fits_in_part_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = BodyArena(4 * PAGE_BYTES)
    write = os.pwrite
    try:
        with monkeypatch.context() as patch:
            # As when /dev/shm has one page left.
            patch.setattr(os, "pwrite", lambda fd, body, at: write(fd, body[:PAGE_BYTES], at))
            assert arena.store(b"x" * 4 * PAGE_BYTES, now_s=0) is None
        assert arena.store(b"y" * 4 * PAGE_BYTES, now_s=0) == Block(0, 4 * PAGE_BYTES)
    finally:
        arena.close()


def test_no_arena_takes_nothing() -> None:
    arena = BodyArena(0)
    assert arena.store(b"x", now_s=0) is None
    arena.close()
