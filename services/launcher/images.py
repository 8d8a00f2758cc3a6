"""Images: those on the list, pulled once, known by their id from then on.

A tag may be moved to another image between two starts; an id may not. So a deployment's image is
looked up once, when a replica is prepared, and containers are made from its id.
"""

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from services.launcher import allow_list
from services.launcher.engine import Engine
from services.launcher.pull_progress import PullProgress
from services.launcher.refusal import Kind, RefusedError, invalid
from services.launcher.settings import LauncherSettings
from services.runtime.clock import SystemClock

log = structlog.get_logger()

MAX_REMEMBERED = 256
SAY_EVERY_S = 2.0


class Images:
    """The images that replicas may be made from."""

    def __init__(self, engine: Engine, settings: LauncherSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._entries = (settings.default_image, *settings.allowed_images)
        self._clock = SystemClock()
        self._prepared: OrderedDict[str, None] = OrderedDict()
        self._pulling: weakref.WeakValueDictionary[str, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        self._said: dict[str, str] = {}

    async def prepare(self, image: str) -> AsyncGenerator[tuple[str, str], None]:
        """Makes sure of an image; yields progress and at last its id, as (progress, id).

        Args:
            image: `name:tag` or `name@sha256:…`; empty for the default one.

        Raises:
            RefusedError: if it is not on the list, or cannot be had.
        """
        name = self._check(image)
        lock = self._pulling.setdefault(name, asyncio.Lock())
        image_id = await self._id_of(name)
        while image_id is None and lock.locked():
            yield self._said.get(name) or f"pulling {name}", ""
            await _released(lock, SAY_EVERY_S)
            image_id = None if lock.locked() else await self._id_of(name)
        if image_id is None:
            async with lock:
                # Whoever had the lock before may have pulled it.
                image_id = await self._id_of(name)
                if image_id is None:
                    async with aclosing(self._pull(name)) as lines:
                        async for line in lines:
                            yield line, ""
                    image_id = await self._id_of(name)
        if image_id is None:
            raise RefusedError(
                Kind.NOT_FOUND, f"the image {name} was pulled and has gone again: try again"
            )
        self._remember(image_id)
        yield "", image_id

    async def check_id(self, image_id: str) -> None:
        """Checks that a container may be made from an image.

        Raises:
            RefusedError: if it is not there, or is not one that the list allows.
        """
        found = await self._engine.image(image_id)
        if found is None:
            raise RefusedError(
                Kind.NOT_FOUND,
                f"the image {image_id} is not on this machine any more: prepare it again",
            )
        names = [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())]
        if image_id in self._prepared or allow_list.is_allowed_content(names, self._entries):
            return
        raise RefusedError(
            Kind.PERMISSION_DENIED,
            f"the image {image_id} ({', '.join(names) or 'without a name'}) is not allowed on this "
            "node: add its name to the launcher's setting allowed_images",
        )

    def _check(self, image: str) -> str:
        wanted = image or self._settings.default_image
        try:
            if allow_list.is_allowed(wanted, self._entries):
                return allow_list.normal(wanted)
        except allow_list.ImageNameError as error:
            raise invalid(f"image: {error}") from error
        raise RefusedError(
            Kind.PERMISSION_DENIED,
            f"the image {wanted} is not allowed on this node: add it to the launcher's setting "
            "allowed_images, or use one of " + ", ".join(self._entries),
        )

    async def _id_of(self, name: str) -> str | None:
        found = await self._engine.image(name)
        return None if found is None else str(found["Id"])

    async def _pull(self, name: str) -> AsyncGenerator[str, None]:
        progress = PullProgress(name)
        said_s = self._clock.monotonic_s()
        log.info("image.pulling", image=name)
        try:
            yield self._say(name, progress.line())
            async with aclosing(self._engine.pull(name)) as steps:
                async for step in steps:
                    progress.take(step)
                    now_s = self._clock.monotonic_s()
                    if now_s - said_s >= SAY_EVERY_S:
                        said_s = now_s
                        yield self._say(name, progress.line())
        finally:
            self._said.pop(name, None)
        log.info("image.pulled", image=name)

    def _say(self, name: str, line: str) -> str:
        self._said[name] = line
        return line

    def _remember(self, image_id: str) -> None:
        self._prepared[image_id] = None
        self._prepared.move_to_end(image_id)
        if len(self._prepared) > MAX_REMEMBERED:
            self._prepared.popitem(last=False)


async def _released(lock: asyncio.Lock, timeout_s: float) -> None:
    """Waits until a lock is free, or some time."""
    try:
        async with asyncio.timeout(timeout_s):
            async with lock:
                pass
    except TimeoutError:
        pass
