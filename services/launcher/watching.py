"""Hears from the engine what happens to this node's containers, and tells who waits for it.

An event is a hint to look, never the news itself: after a gap, such as a restart of the engine,
everyone is told to look, and what was missed is seen.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import Any

import structlog

from services.launcher.engine import Engine
from services.launcher.refusal import RefusedError
from services.launcher.template import LABEL_REPLICA

log = structlog.get_logger()

FIRST_RETRY_S = 0.2
LAST_RETRY_S = 2.0
MAX_REMEMBERED = 1024
MAX_WATCHERS = 1024


class Watching:
    """Follows the engine's events."""

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        """Follows nothing before `run`.

        Args:
            engine: the engine.
            labels: of this node's containers.
        """
        self._engine = engine
        self._labels = labels
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._memory_kills: OrderedDict[str, None] = OrderedDict()

    def had_memory_kill(self, container_id: str) -> bool:
        """Whether the kernel was heard to kill a process of a container for want of memory."""
        return container_id in self._memory_kills

    @contextlib.contextmanager
    def changes(self, replica_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever a replica's container may have changed."""
        changed = asyncio.Event()
        self._waiting.setdefault(replica_id, set()).add(changed)
        try:
            yield changed
        finally:
            waiting = self._waiting[replica_id]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[replica_id]

    @property
    def is_full(self) -> bool:
        """Whether so many wait that no more should."""
        return sum(map(len, self._waiting.values())) >= MAX_WATCHERS

    async def run(self) -> None:
        """Listens for ever, again and again."""
        retry_s = FIRST_RETRY_S
        away = False
        while True:
            try:
                async with aclosing(self._engine.events(self._labels)) as events:
                    async for event in events:
                        if not event:
                            if away:
                                log.info("engine.back")
                            away, retry_s = False, FIRST_RETRY_S
                            self._wake_all()
                        else:
                            self._heard(event)
                reason = "the connection ended"
            except RefusedError as error:
                reason = error.message
            if not away:
                log.warning("engine.away", reason=reason)
            away = True
            self._wake_all()
            await asyncio.sleep(retry_s)
            retry_s = min(LAST_RETRY_S, retry_s * 2)

    def _heard(self, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor") or {}
        container_id = str(actor.get("ID", ""))
        match event.get("Action"):
            case "oom":
                self._memory_kills[container_id] = None
                if len(self._memory_kills) > MAX_REMEMBERED:
                    self._memory_kills.popitem(last=False)
            case "destroy":
                self._memory_kills.pop(container_id, None)
        replica_id = (actor.get("Attributes") or {}).get(LABEL_REPLICA, "")
        for changed in self._waiting.get(replica_id, ()):
            changed.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()
