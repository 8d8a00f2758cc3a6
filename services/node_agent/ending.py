"""Ends tasks for certain."""

import asyncio
from typing import Any

from services.runtime.tasks import CANCEL_AGAIN_S


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels tasks until all have ended; what they raise is dropped.

    Cancelling once is not enough: in Python 3.11 `wait_for`, which nats-py uses, drops a
    cancellation that comes together with what it waits for. Of eleven replicas that were told to
    leave just when they had become READY, two stayed for ever.
    """
    while unfinished := [task for task in tasks if not task.done()]:
        for task in unfinished:
            task.cancel()
        await asyncio.wait(unfinished, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()
