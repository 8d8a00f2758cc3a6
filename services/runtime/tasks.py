"""Background work that lasts as long as its process, and ends it when it fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any

CANCEL_AGAIN_S = 0.2


async def run_until(stopping: asyncio.Event, **work: Coroutine[Any, Any, None]) -> None:
    """Runs coroutines side by side until `stopping` is set, then cancels them.

    Not a TaskGroup, which cancels once: in Python 3.11 `wait_for`, which nats-py uses too, drops a
    cancellation that comes together with what it waits for, and the group would wait for ever.

    Args:
        stopping: when to stop.
        work: coroutines that go on for ever, by name.

    Raises:
        ExceptionGroup: if one fails, with its error; the others are cancelled.
        RuntimeError: within the group, if one returns or is cancelled, which none may.
    """
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task.done()]
    finally:
        while unfinished := [task for task in (stop, *tasks) if not task.done()]:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=CANCEL_AGAIN_S)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    failed = [error for error in errors if isinstance(error, Exception)]
    if not stopping.is_set():
        failed += [_ended_early(task) for task in ended if task.cancelled() or not task.exception()]
    if failed:
        raise ExceptionGroup("background work failed", failed)


def _ended_early(task: asyncio.Task[None]) -> RuntimeError:
    how = "was cancelled" if task.cancelled() else "ended by itself"
    return RuntimeError(f"background work {task.get_name()!r} {how}")
