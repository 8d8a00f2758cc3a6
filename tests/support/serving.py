"""Services inside the test's own process: real servers on ports that the kernel chose."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.runtime.config import ProcessSettings
from tests.support.eventually import eventually

Serve = Callable[[Any, asyncio.Event], Awaitable[None]]


@asynccontextmanager
async def serving(
    serve: Serve, settings_class: type[ProcessSettings], ready_file: Path, **settings: Any
) -> AsyncIterator[dict[str, str]]:
    """Runs a service until the block ends, and fails if the service does.

    Args:
        serve: of its main module.
        settings_class: of its settings module.
        ready_file: a path that may be written.
        settings: what differs from the defaults.

    Yields:
        The addresses it listens on, as in its ready file.
    """
    stopping = asyncio.Event()
    ready_file.unlink(missing_ok=True)
    made = settings_class(ready_file=ready_file, **settings)
    task = asyncio.ensure_future(serve(made, stopping))
    try:
        await eventually(lambda: ready_file.exists() or task.done(), what="the service's start")
        if task.done():
            await task
        yield json.loads(ready_file.read_text())
    finally:
        stopping.set()
        async with asyncio.timeout(60):
            await task
