"""One process of the local mesh: started, started again when it dies, stopped."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
# One that ran this long did not die of its start: it gets the short pause again.
STABLE_AFTER_S = 10.0

LOG_LIMIT_BYTES = 10 * 1024 * 1024
LOG_CHECK_S = 5.0
_SPAWN = Path(__file__).with_name("spawn.py")
_EXIT_CONFIGURATION = 2

Say = Callable[[str], None]


class ChildFailedError(Exception):
    """A process that does not come up; the text has its own last words."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one process.

    Attributes:
        name: names it on the console and its log file.
        command: absolute program and arguments.
        log_file: gets its standard output and error.
        ready_file: JSON it writes once it listens; None for a program that writes none.
        environment: its whole environment.
        stop_grace_s: how long it may take to end after SIGTERM.
    """

    name: str
    command: Sequence[str]
    log_file: Path
    ready_file: Path | None
    environment: Mapping[str, str] = field(repr=False)
    stop_grace_s: float


class Child:
    """A supervised process."""

    def __init__(self, spec: ChildSpec, say: Say) -> None:
        self.spec = spec
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._died_early = 0
        self._configuration_error = False
        self.start_count = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def ready(self) -> dict[str, Any] | None:
        """What the running process wrote into its ready file; None until it has."""
        if self.spec.ready_file is None or self.pid is None:
            return None
        try:
            written: dict[str, Any] = json.loads(self.spec.ready_file.read_text())
        except (OSError, ValueError):
            return None
        return written if written.get("pid") == self.pid else None

    def check_alive(self, deaths_allowed: int) -> None:
        """Checks that the process is not dying again and again.

        Raises:
            ChildFailedError: if it died more than `deaths_allowed` times soon after its start, or
                its configuration is wrong.
        """
        if self._configuration_error or self._died_early > deaths_allowed:
            raise ChildFailedError(
                f"{self.spec.name} does not start: {last_words(self.spec.log_file)} "
                f"(log: {self.spec.log_file})"
            )

    async def keep_running(self) -> None:
        """Runs the process, and again whenever it ends, until `stop` is called."""
        backoff_s = FIRST_BACKOFF_S
        clock = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_s = clock.time()
            try:
                code = await self._run_once()
            except OSError as error:
                self._say(f"{self.spec.name} cannot be started: {error.strerror}")
                code = -1
            if self._stopping.is_set():
                return
            if clock.time() - started_s >= STABLE_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            else:
                self._died_early += 1
            self._configuration_error = code == _EXIT_CONFIGURATION
            self._say(
                f"{self.spec.name} ended ({_reason(code)}); starting it again in {backoff_s:g} s"
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._stopping.wait()
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def stop(self) -> bool:
        """Asks the process to end and waits; returns False if it had to be killed."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return True
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.stop_grace_s):
                await process.wait()
        except TimeoutError:
            self.kill(stopping=True)
            await process.wait()
            return False
        return True

    def kill(self, *, stopping: bool = False) -> None:
        """Kills the process at once; unless it is stopping, it is started again."""
        if stopping:
            self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run_once(self) -> int:
        spec = self.spec
        if spec.ready_file is not None:
            spec.ready_file.unlink(missing_ok=True)
        rotate(spec.log_file)
        with spec.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_SPAWN), str(os.getpid()), *spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(spec.environment),
                # Ctrl-C in the terminal is for the mesh alone, which stops them in order.
                process_group=0,
            )
        self.start_count += 1
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        return await self._until_exit(self._process)

    async def _until_exit(self, process: asyncio.subprocess.Process) -> int:
        while True:
            try:
                async with asyncio.timeout(LOG_CHECK_S):
                    return await process.wait()
            except TimeoutError:
                await asyncio.to_thread(rotate, self.spec.log_file)


def rotate(log_file: Path) -> None:
    """Puts the end of a log that has grown large aside, in place of what was put aside before.

    The file itself is emptied, not replaced: who writes it has it open, for appending.
    """
    try:
        with log_file.open("r+b") as log:
            size_bytes = log.seek(0, os.SEEK_END)
            if size_bytes <= LOG_LIMIT_BYTES:
                return
            log.seek(size_bytes - LOG_LIMIT_BYTES)
            # A full disk is no reason to let the log grow.
            with contextlib.suppress(OSError), log_file.with_suffix(".log.1").open("wb") as aside:
                shutil.copyfileobj(log, aside)
            log.truncate(0)
    except FileNotFoundError:
        pass


def last_words(log_file: Path) -> str:
    """The last message in a log of JSON lines, or its last line."""
    try:
        lines = log_file.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    for line in reversed(lines[-50:]):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "critical"):
            return str(entry.get("error") or entry.get("event"))
    return lines[-1].strip() if lines else "it wrote nothing"


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
