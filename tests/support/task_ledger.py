"""A ledger of tasks for tests: looks at what is kept, and ends tasks as agents do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.wire.nats_link import NatsLink
from services.wire.tasks.ledger import TaskLedger
from tests.support.eventually import eventually


@asynccontextmanager
async def ledger_at(url: str) -> AsyncIterator[tuple[TaskLedger, NatsLink]]:
    """A ledger with a connection of its own.

    Args:
        url: of nats-server.
    """
    link = NatsLink("test ledger", url)
    ledger = TaskLedger(link)
    stopping = asyncio.Event()
    running = asyncio.ensure_future(link.run(stopping))
    try:
        await eventually(lambda: link.connected)
        yield ledger, link
    finally:
        stopping.set()
        await running
        await link.close()
