"""Tasks that are submitted at the same time are stored with one sync to disk, all or none.

A sync costs as much for one message as for a hundred, and is what bounds how many tasks are stored
in a second. What is not stored together for any reason is published singly. That is safe also where
nobody knows whether it was stored: each message has the same id as before, a single one that was
stored is told to be a duplicate, and JetStream refuses a group, whole, that holds a duplicate,
whichever of them comes first.
"""

import asyncio
from dataclasses import dataclass

import nats.errors
import structlog

from forebay.v1.task_record_pb2 import TaskEnvelope
from services.wire.nats_link import NatsLink
from services.wire.stored_publisher import NotStoredError, NotTogetherError, Outgoing, Stored
from services.wire.tasks.ledger import TaskLedger, queue_message

log = structlog.get_logger()

LEAST_COUNT = 6
"""A group costs the server four syncs (three for the files that it keeps it in until it is whole),
whatever its size."""

MOST_COUNT = 256
MOST_BYTES = 4 << 20
LARGE_BYTES = 1 << 20
"""For one of this size a sync more makes no difference."""

MOST_UNDER_WAY = 4
"""Groups; nats-server takes 50 of all routers together. What comes meanwhile waits for the next."""


@dataclass(slots=True)
class _Waiting:
    """A task that waits for a group; its future says how it was stored, or None: not in a group."""

    lane: tuple[str, int]
    message: Outgoing
    stored: asyncio.Future[Stored | None]


class Gathering:
    """Puts tasks into the queue, together where there are several."""

    def __init__(self, link: NatsLink, ledger: TaskLedger) -> None:
        """Nothing gathered yet."""
        self._link = link
        self._ledger = ledger
        # Bounded by the callers, each of whom waits for its own.
        self._waiting: list[_Waiting] = []
        self._groups: set[asyncio.Task[None]] = set()
        # The connection over which the server said that it takes no groups.
        self._refused_by = 0

    async def enqueue(self, envelope: TaskEnvelope) -> Stored:
        """Stores a task in the queue; as `TaskLedger.enqueue`."""
        message = queue_message(envelope)
        if self._refused_by != self._link.connections and len(message.payload) < LARGE_BYTES:
            lane = (envelope.deployment, envelope.task.priority)
            stored = await self._gathered(lane, message)
            if stored is not None:
                return stored
        return await self._ledger.enqueue(envelope)

    async def _gathered(self, lane: tuple[str, int], message: Outgoing) -> Stored | None:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(lane, message, loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            # After all that this turn of the event loop brings.
            loop.call_soon(self._start)
        return await waiting.stored

    def _start(self) -> None:
        while self._waiting and len(self._groups) < MOST_UNDER_WAY:
            group = self._next_group()
            if len(group) < LEAST_COUNT:
                _tell(group, None)
                continue
            task = asyncio.get_running_loop().create_task(self._store(group))
            self._groups.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._groups.discard(task)
        self._start()

    def _next_group(self) -> list[_Waiting]:
        count = size = 0
        for each in self._waiting[:MOST_COUNT]:
            size += len(each.message.payload)
            if size > MOST_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        # Their callers have gone.
        return [each for each in group if not each.stored.done()]

    async def _store(self, group: list[_Waiting]) -> None:
        stored: list[Stored] | None = None
        try:
            for lane in {each.lane for each in group}:
                await self._ledger.ensure_consumer(*lane)
            stored = await self._ledger.publisher.publish_together([each.message for each in group])
        except NotTogetherError as error:
            self._refused_by = self._link.connections
            log.info("tasks.not_together", reason=str(error))
        except (NotStoredError, nats.errors.Error, TimeoutError) as error:
            # The reason is that of one of them, and is told to that one when it is alone.
            log.debug("tasks.group_not_stored", error=str(error) or type(error).__name__)
        finally:
            _tell(group, stored)


def _tell(group: list[_Waiting], stored: list[Stored] | None) -> None:
    for number, each in enumerate(group):
        if not each.stored.done():
            each.stored.set_result(stored[number] if stored else None)
