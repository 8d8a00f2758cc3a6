"""Python environments of models: one per content of requirements.txt, built once.

Triton's Python backend was built against numpy 1: with numpy 2 it returns empty tensors and says
nothing. So numpy<2 is part of every environment.

Agents share the directory. Whoever builds or removes an environment holds its lock: an asyncio.Lock
within a process, a file lock between processes. The build inherits the file lock, so that what a
killed agent left running is waited for rather than built over.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import structlog

log = structlog.get_logger()

BUILD_TIMEOUT_S = 1800.0
LOCK_POLL_S = 0.2
KEPT = 8
"""Environments kept, those used last; one with torch takes several GB."""
NUMPY = "numpy<2"

Say = Callable[[str], None]


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
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, model: Path, say: Say) -> Path:
        """The environment for an unpacked model.

        Args:
            model: directory of the model.
            say: told what takes time.

        Raises:
            RequirementsError: if it cannot be built.
        """
        requirements = model / "requirements.txt"
        try:
            if not requirements.is_file():
                return self._base
            content = await asyncio.to_thread(requirements.read_bytes)
        except OSError as error:
            raise RequirementsError(
                f"the model's requirements.txt cannot be read: {error.strerror or error}"
            ) from error
        return await self.build(content, say)

    async def build(self, requirements: bytes, say: Say) -> Path:
        """The environment for the content of a requirements.txt, built if it is not there.

        Raises:
            RequirementsError: if it cannot be built; nothing of it is left.
        """
        identity = hashlib.sha256(requirements + os.fsencode(self._base.resolve()))
        target = self._directory / identity.hexdigest()[:16]
        try:
            if _use(target):
                return target
            self._directory.mkdir(parents=True, exist_ok=True)
            async with self._alone_with(target, say) as lock:
                if not _use(target):
                    say("building the model's Python environment from its requirements.txt")
                    await self._install(target, requirements, lock)
        except OSError as error:
            raise RequirementsError(
                f"the model's Python environment cannot be built in {self._directory}: "
                f"{error.strerror or error}"
            ) from error
        try:
            await self._prune()
        except OSError as error:
            log.warning("environment.not_pruned", error=str(error))
        return target

    @contextlib.asynccontextmanager
    async def _alone_with(self, target: Path, say: Say) -> AsyncIterator[int]:
        """Holds the lock of an environment; gives the file that holds it.

        Polls: a thread that waits for the file lock would be one of the few that all of the agent
        shares, for as long as pip runs.
        """
        async with self._locks.setdefault(target.name, asyncio.Lock()):
            with _lock_file(target).open("w") as lock:
                told = False
                while not _try_lock(lock.fileno()):
                    if not told:
                        say(
                            "waiting for the model's Python environment, which another agent builds"
                        )
                        told = True
                    await asyncio.sleep(LOCK_POLL_S)
                yield lock.fileno()

    async def _install(self, target: Path, requirements: bytes, lock: int) -> None:
        python = self._base / "bin" / "python"
        wanted = target / "requirements.txt"
        try:
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            await _run([str(python), "-m", "venv", "--without-pip", str(target)], lock)
            wanted.write_bytes(requirements)
            await _run(
                [str(python), "-m", "pip", "--python", str(target / "bin" / "python"), "install",
                 "--no-input", "--disable-pip-version-check", "-r", str(wanted), NUMPY], lock
            )  # fmt: skip
            _complete(target).touch()
        except (RequirementsError, OSError):
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            raise
        log.info("environment.built", name=target.name)

    async def _prune(self) -> None:
        """Removes environments but for those used last, those in use, and those being built."""
        for target in await asyncio.to_thread(_removable, self._directory):
            if self._locks.setdefault(target.name, asyncio.Lock()).locked():
                continue
            with _lock_file(target).open("w") as lock:
                if not _try_lock(lock.fileno()):
                    continue
                _complete(target).unlink(missing_ok=True)
                await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            log.info("environment.removed", name=target.name)


def _complete(target: Path) -> Path:
    return target / ".complete"


def _lock_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _use(target: Path) -> bool:
    """Marks a complete environment as used now; False if there is none."""
    try:
        os.utime(_complete(target))
    except OSError:
        # One that another user made for all is as good.
        return _complete(target).exists()
    return True


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _removable(directory: Path) -> list[Path]:
    """Environments that nothing runs in, without the KEPT used last; incomplete ones too."""
    used_ns: dict[Path, int] = {}
    for path in directory.iterdir():
        if path.is_dir():
            with contextlib.suppress(FileNotFoundError):
                used_ns[path] = 0
                used_ns[path] = _complete(path).stat().st_mtime_ns
    last = sorted(used_ns, key=lambda path: used_ns[path], reverse=True)
    beyond = [path for index, path in enumerate(last) if index >= KEPT or not used_ns[path]]
    if not beyond:
        return []
    in_use = _environments_in_use()
    return [path for path in beyond if str(path) not in in_use]


def _environments_in_use() -> set[str]:
    """What processes of this user name as their environment, as every Triton does."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found.add(process.environ().get("VIRTUAL_ENV", ""))
    return found


async def _run(command: list[str], lock: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=(lock,),
        # pip starts processes of its own, to be ended with it.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(BUILD_TIMEOUT_S):
            output, _ = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise RequirementsError(f"pip took longer than {BUILD_TIMEOUT_S:.0f} s") from None
        raise
    if process.returncode:
        lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise RequirementsError(
            "the model's requirements.txt cannot be installed: " + "\n".join(errors[-5:])
        )
