"""Background work that lasts as long as its process, and ends it when it fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any

CANCEL_AGAIN_S = 0.2


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
        # Once is not always enough: in Python 3.11 `wait_for`, which nats-py uses too, drops a
        # cancellation that comes together with what it waits for.
        while unfinished := [task for task in running if not task.done()]:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=CANCEL_AGAIN_S)
