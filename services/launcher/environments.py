"""Python environments of models: one for each requirements.txt and image, built once, then read.

A build writes to `environments/{id}.tmp`; its packages are renamed to `environments/{id}` when pip
has succeeded, so that an environment is whole or not there. The lock of the node's state_dir makes
this launcher the only one to write here.
"""

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import structlog

from services.launcher import container_state, own_folders, reasons
from services.launcher.engine import Engine, Json
from services.launcher.environment_template import (
    build_name,
    environment_container,
    environment_id,
)
from services.launcher.images import Images
from services.launcher.log_frames import LogFrames
from services.launcher.refusal import Kind, RefusedError
from services.launcher.settings import LauncherSettings
from services.launcher.template import (
    ENVIRONMENT,
    KIND_ENVIRONMENT,
    KIND_REPLICA,
    owner_labels,
)
from services.runtime.clock import SystemClock

log = structlog.get_logger()

KEPT = 8
"""Unused environments kept, those used last; one with torch takes several GB."""
BUILDS_AT_ONCE = 2
"""Each may take as much memory as a replica, and all the CPUs."""
LOG_LINES = 50
SAY_EVERY_S = 2.0
TIDY_RETRY_S = 5.0


class Environments:
    """Environments by their id."""

    def __init__(
        self, engine: Engine, settings: LauncherSettings, images: Images, state_dir: Path
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._images = images
        self._directory = state_dir / "environments"
        self._clock = SystemClock()
        self._building = asyncio.Semaphore(BUILDS_AT_ONCE)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def prepare(
        self, image_id: str, requirements: bytes
    ) -> AsyncGenerator[tuple[str, str], None]:
        """Makes sure of an environment; yields progress and at last its id, as (progress, id).

        Args:
            image_id: image whose Python installs and runs it.
            requirements: content of requirements.txt.

        Raises:
            RefusedError: if it cannot be built; nothing of it is left then.
        """
        environment = environment_id(image_id, requirements)
        lock = self._locks.setdefault(environment, asyncio.Lock())
        if lock.locked():
            yield "waiting for the model's Python environment, which is being built", ""
        async with lock:
            if not await asyncio.to_thread(own_folders.use, self._directory, environment):
                await self._images.check_id(image_id)
                if self._building.locked():
                    yield "waiting for Python environments of other models, being built", ""
                async with self._building:
                    build = self._build(image_id, environment, requirements)
                    async with aclosing(build) as lines:
                        async for line in lines:
                            yield line, ""
        yield "", environment
        await self._prune()

    async def tidy(self) -> None:
        """Removes what builds of a launcher that was killed have left, then waits for ever."""
        labels = owner_labels(self._settings, KIND_ENVIRONMENT)
        while True:
            try:
                for left in await self._engine.list_containers(labels):
                    name = str(left["Names"][0]).lstrip("/")
                    if not self._is_building(name):
                        await self._engine.remove(str(left["Id"]), name)
                break
            except RefusedError:
                await asyncio.sleep(TIDY_RETRY_S)
        for name in await asyncio.to_thread(own_folders.unfinished, self._directory):
            environment = name.removesuffix(own_folders.UNFINISHED)
            if not self._locks.setdefault(environment, asyncio.Lock()).locked():
                await asyncio.to_thread(own_folders.remove, self._directory, name)
        await asyncio.Event().wait()

    def _is_building(self, name: str) -> bool:
        return any(
            lock.locked() and build_name(self._settings, environment) == name
            for environment, lock in list(self._locks.items())
        )

    async def _build(
        self, image_id: str, environment: str, requirements: bytes
    ) -> AsyncGenerator[str, None]:
        folder = self._directory / f"{environment}{own_folders.UNFINISHED}"
        name = build_name(self._settings, environment)
        config = environment_container(image_id, environment, str(folder), self._settings)
        yield "building the model's Python environment from its requirements.txt"
        container_id = ""
        try:
            await asyncio.to_thread(
                own_folders.prepare, folder, requirements, self._settings.user_id
            )
            await self._remove_left(name)
            container_id = await self._engine.create(name, config)
            await self._engine.start(container_id, name)
            async with aclosing(self._follow(container_id)) as lines:
                async for line in lines:
                    yield line
            await asyncio.to_thread(own_folders.finish, folder, environment)
        except TimeoutError:
            raise RefusedError(
                Kind.DEADLINE_EXCEEDED,
                "the model's requirements.txt cannot be installed: pip took longer than "
                f"{self._settings.environment_timeout_s:g} s (setting environment_timeout_s)",
            ) from None
        except OSError as error:
            raise RefusedError(
                Kind.FAILED_PRECONDITION,
                f"the model's Python environment cannot be built in {self._directory}: "
                f"{error.strerror or error}",
            ) from error
        finally:
            if container_id:
                with contextlib.suppress(RefusedError):
                    await asyncio.shield(self._engine.remove(container_id, name))
            await asyncio.to_thread(own_folders.remove, self._directory, folder.name)
        log.info("environment.built", environment=environment)

    async def _follow(self, container_id: str) -> AsyncGenerator[str, None]:
        """Yields what pip does, now and then; returns when it has succeeded."""
        frames, last = LogFrames(), deque[str](maxlen=LOG_LINES)
        said_s = self._clock.monotonic_s()
        end_s = asyncio.get_running_loop().time() + self._settings.environment_timeout_s
        async with aclosing(self._engine.log(container_id, "")) as pieces:
            while True:
                # Not round the loop: what is yielded would be cancelled in the caller.
                async with asyncio.timeout_at(end_s):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                last.extend(line.text.rstrip("\n") for line in frames.take(piece))
                now_s = self._clock.monotonic_s()
                if last and now_s - said_s >= SAY_EVERY_S:
                    said_s = now_s
                    yield f"pip: {last[-1].strip()[:200]}"
        ended = await self._engine.wait(container_id)
        if ended["State"]["ExitCode"]:
            raise reasons.of_build(
                int(ended["State"]["ExitCode"]),
                bool(ended["State"].get("OOMKilled")),
                self._settings.default_memory_bytes,
                list(last),
            )

    async def _remove_left(self, name: str) -> None:
        left = await self._engine.inspect(name)
        if left is not None and container_state.belongs(
            left, owner_labels(self._settings, KIND_ENVIRONMENT)
        ):
            await self._engine.remove(str(left["Id"]), name)

    async def _prune(self) -> None:
        """Removes environments but for those in use, those being built and KEPT others."""
        try:
            used = await self._in_use()
        except RefusedError:
            return
        for name in (await asyncio.to_thread(own_folders.by_use, self._directory, used))[KEPT:]:
            if self._locks.setdefault(name, asyncio.Lock()).locked():
                continue
            await asyncio.to_thread(own_folders.remove, self._directory, name)
            log.info("environment.removed", environment=name)

    async def _in_use(self) -> set[str]:
        """Ids of those that containers of this node have mounted, running or not."""
        labels = owner_labels(self._settings, KIND_REPLICA)
        return {
            Path(str(mount.get("Source", ""))).name
            for container in await self._engine.list_containers(labels)
            for mount in _mounts(container)
            if mount.get("Destination") == ENVIRONMENT
        }


def _mounts(container: Json) -> list[Json]:
    return list(container.get("Mounts") or ())
