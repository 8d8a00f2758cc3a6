"""One worker process, from its start to its end."""

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Self

from services.autoscaler.custom.worker import MAX_REPLICAS
from services.autoscaler.scaling.signals import Signals
from services.runtime.children import python_environment

CALL_LIMIT_S = 1.0
START_LIMIT_S = 5.0

_NAMES = tuple(field.name for field in fields(Signals))


class FailedError(Exception):
    """The process cannot be used any more; the text says why."""


class PolicyError(Exception):
    """The function has no answer; the process goes on. The text says why."""


class WorkerProcess:
    """A child process that calls one function."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Use `start`."""
        self._process = process

    @classmethod
    async def start(cls, directory: Path, function: str, limit_s: float = START_LIMIT_S) -> Self:
        """Starts a worker and waits until the function is imported.

        Args:
            directory: where the function's module is.
            function: as `package.module:function`.
            limit_s: how long that may take.

        Raises:
            FailedError: if the function cannot be imported or called, or took too long.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "services.autoscaler.custom.worker"),
                *(str(directory), function),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(),
                # Its own group, so that what the function starts ends with it.
                start_new_session=True,
            )
        except OSError as error:
            raise FailedError(f"its process does not start: {error.strerror}") from error
        worker = cls(process)
        try:
            said = await worker._reply(limit_s, f"importing it took longer than {limit_s:g} s")
            if "error" in said:
                raise FailedError(str(said["error"]))
        except BaseException:
            await worker.end()
            raise
        return worker

    async def call(self, signals: Signals, limit_s: float = CALL_LIMIT_S) -> float:
        """Calls the function.

        Args:
            signals: what it is called with.
            limit_s: how long it may take.

        Raises:
            PolicyError: if it raised, or returned what is no number of replicas.
            FailedError: if it took too long or ended the process, which must be ended.
        """
        assert self._process.stdin is not None, "a worker has a pipe to write to"
        line = json.dumps({name: getattr(signals, name) for name in _NAMES})
        # uvloop raises RuntimeError where the process ended between two calls; the reply tells how.
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(line.encode() + b"\n")
        said = await self._reply(limit_s, f"took longer than {limit_s:g} s")
        if "error" in said:
            raise PolicyError(str(said["error"]))
        value = said.get("answer")
        if not isinstance(value, float) or not 0 <= value <= MAX_REPLICAS or math.isnan(value):
            raise FailedError("wrote into the autoscaler's pipe")
        return value

    async def end(self) -> None:
        """Ends the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def _reply(self, limit_s: float, too_long: str) -> dict[str, object]:
        assert self._process.stdout is not None, "a worker has a pipe to read from"
        try:
            async with asyncio.timeout(limit_s):
                line = await self._process.stdout.readline()
                if not line:
                    await self._process.wait()
        except TimeoutError:
            raise FailedError(too_long) from None
        except ValueError:
            raise FailedError("wrote into the autoscaler's pipe") from None
        if not line:
            raise FailedError(_ended(self._process.returncode))
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise FailedError("wrote into the autoscaler's pipe")
        return said


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _environment() -> dict[str, str]:
    environment = python_environment()
    # Each thread of a numeric library takes address space, which is limited.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, "1")
    return environment
