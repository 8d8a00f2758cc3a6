"""Python environments of models: one per content of requirements.txt, built once.

Triton's Python backend was built against numpy 1: with numpy 2 it returns empty tensors and says
nothing. So numpy<2 is part of every environment.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

BUILD_TIMEOUT_S = 1800.0
NUMPY = "numpy<2"


class RequirementsError(Exception):
    """The environment could not be built; the text is pip's."""


class PythonEnvironments:
    """Environments by the content of requirements.txt."""

    def __init__(self, directory: Path, base: Path) -> None:
        """Environments in a directory.

        Args:
            directory: shared by all agents of this machine.
            base: the environment whose interpreter and pip build the others, and which models
                without requirements run in.
        """
        self._directory = directory
        self._base = base

    async def of(self, model: Path, say: Callable[[str], None]) -> Path:
        """The environment for an unpacked model.

        Args:
            model: directory of the model.
            say: told what takes time.

        Raises:
            RequirementsError: if it cannot be built.
        """
        requirements = model / "requirements.txt"
        if not requirements.is_file():
            return self._base
        return await self.build(requirements.read_bytes(), say)

    async def build(self, requirements: bytes, say: Callable[[str], None]) -> Path:
        """The environment for the content of a requirements.txt, built if it is not there.

        Raises:
            RequirementsError: if it cannot be built.
        """
        identity = hashlib.sha256(requirements + os.fsencode(self._base.resolve()))
        target = self._directory / identity.hexdigest()[:16]
        complete = target / ".complete"
        if complete.exists():
            return target
        self._directory.mkdir(parents=True, exist_ok=True)
        lock = (self._directory / f".{target.name}.lock").open("w")
        try:
            say("waiting for the model's Python environment, which another agent builds")
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if not complete.exists():
                say("building the model's Python environment from its requirements.txt")
                shutil.rmtree(target, ignore_errors=True)
                await self._install(target, requirements)
                complete.touch()
        finally:
            lock.close()
        return target

    async def _install(self, target: Path, requirements: bytes) -> None:
        python = self._base / "bin" / "python"
        await _run([str(python), "-m", "venv", "--without-pip", str(target)])
        wanted = target / "requirements.txt"
        wanted.write_bytes(requirements)
        await _run(
            [str(python), "-m", "pip", "--python", str(target / "bin" / "python"), "install",
             "--no-input", "--disable-pip-version-check", "-r", str(wanted), NUMPY]
        )  # fmt: skip
        log.info("environment.built", name=target.name)


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(BUILD_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise RequirementsError(f"pip took longer than {BUILD_TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise RequirementsError(
            "the model's requirements.txt cannot be installed: " + "\n".join(errors[-5:])
        )
