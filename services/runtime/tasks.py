"""Background work that lasts as long as its process, and ends it when it fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_until(stopping: asyncio.Event, **work: Coroutine[Any, Any, None]) -> None:
    """Runs coroutines side by side until `stopping` is set, then cancels them.

    Args:
        stopping: when to stop.
        work: coroutines that go on for ever, by name.

    Raises:
        ExceptionGroup: if one fails, with its error; the others are cancelled.
        RuntimeError: within the group, if one returns, which none may.
    """

    async def forever(name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        await coroutine
        if not stopping.is_set():
            raise RuntimeError(f"background work {name!r} ended by itself")

    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(forever(name, coroutine), name=name)
            for name, coroutine in work.items()
        ]
        await stopping.wait()
        for task in running:
            task.cancel()
