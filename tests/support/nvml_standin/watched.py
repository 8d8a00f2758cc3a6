"""An agent's inventory in a process with the stand-in for NVML, asked for what it would report."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.eventually import TIMEOUT_S, eventually

ROOT = Path(__file__).resolve().parents[3]


class Inventory:
    """What it says now."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def now(self, **process_ids: list[int]) -> dict[str, Any]:
        """What a report would say.

        Args:
            process_ids: of each replica.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(process_ids) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def health(self) -> list[str]:
        """Of each GPU."""
        return [gpu["health"].removeprefix("HEALTH_") for gpu in self.now()["gpus"]]

    async def until_watched(self, *cards: str) -> None:
        """Waits until events of these cards, and of no others, are told."""
        expected = sorted(cards)
        await eventually(lambda: self.now()["watched"] == expected, what=f"watched {cards}")

    async def until_health(self, *expected: str, timeout_s: float = TIMEOUT_S) -> float:
        """Waits until the GPUs are so; returns how long that took, in seconds."""
        started_s = time.monotonic()

        def so() -> bool:
            health = self.health()
            assert health == list(expected), health
            return True

        await eventually(so, timeout_s, f"health {expected}")
        return time.monotonic() - started_s

    async def until(self, what: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Waits until its message has these words."""

        def said() -> dict[str, Any]:
            found = self.now()
            assert what in found["message"], found["message"]
            return found

        return await eventually(said, timeout_s, what)


@contextmanager
def inventory(environment: dict[str, str], *ignored_xids: int) -> Iterator[Inventory]:
    """Runs one until the block ends."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "tests.support.nvml_standin.inventory_process"),
            *map(str, ignored_xids),
        ],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Inventory(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
