"""Looks at the queue: at every waiting task, and at who is to fetch it."""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

import nats.js.errors
import structlog

from services.autoscaler.tasks import listing
from services.autoscaler.tasks.findings import Queued, Repair, Seen
from services.autoscaler.tasks.repairs import Repairs
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.stream_reader import StoredMessage
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()

T = TypeVar("T")

MAX_ENDS = 5000
"""Tasks that one sweep ends at most of a page, so that the next sees soon what else has come."""

PARSED_AT_ONCE = 5000
MAX_LANES = 200
MAX_PROGRESS = 1000
READ_COUNT = 100


@dataclass(slots=True)
class Queue:
    """What there is in the queue.

    Attributes:
        lanes: how many tasks wait, by deployment and priority.
        more: whether tasks are left to be ended by the next sweep.
    """

    lanes: Counter[tuple[str, int]] = field(default_factory=Counter)
    more: bool = False


class Lanes:
    """Repairs the queue and its consumers."""

    def __init__(self, link: NatsLink, ledger: TaskLedger, clock: ServerClock) -> None:
        """Has looked at nothing.

        Args:
            link: to NATS.
            ledger: of tasks.
            clock: tells what has expired.
        """
        self._link = link
        self._ledger = ledger
        self._clock = clock
        # Where the next thorough look goes on, when there are more than one looks at.
        self._next_lane = 0
        # Those seen below their consumer's floor at the last look, by lane.
        self._below: dict[tuple[str, int], frozenset[int]] = {}
        self._next_progress = 0

    async def look(self, repairs: Repairs, gone: Collection[str]) -> Queue:
        """Ends waiting tasks that nobody else will end, and takes out those that have ended.

        Args:
            repairs: carries it out.
            gone: deployments that were deleted.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        queue = Queue()
        async for page in listing.subject_pages(self._link, streams.TASKS, subjects.TASKS):
            seen = Seen()
            for start in range(0, len(page), PARSED_AT_ONCE):
                seen.add(page[start : start + PARSED_AT_ONCE], self._clock.now_s(), gone)
                # The rest of the process is not to wait for 100,000 lines.
                await asyncio.sleep(0)
            if seen.unreadable:
                first = seen.unreadable[0][:200]
                log.warning("tasks.unreadable", count=len(seen.unreadable), first=first)
            queue.lanes += seen.lanes
            queue.more |= max(len(seen.due), len(seen.orphaned)) > MAX_ENDS
            await repairs.take_out_ended(seen.waiting)
            await repairs.end_all(Repair.EXPIRED, seen.due[:MAX_ENDS])
            await repairs.end_all(Repair.ORPHANED, seen.orphaned[:MAX_ENDS])
        return queue

    async def mend_consumers(
        self, repairs: Repairs, queue: Queue, declared: Collection[str], gone: Collection[str]
    ) -> set[str]:
        """Makes consumers that are missing and removes those of deleted deployments.

        To be called after `look`: whoever stores a task makes sure of its consumer first.

        Returns:
            Deployments that have a consumer.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        there = await listing.consumers(self._link, streams.TASKS)
        for deployment, priority in queue.lanes:
            name = streams.consumer(deployment, priority)
            if name in there or deployment not in declared or priority not in streams.PRIORITIES:
                continue
            self._ledger.forget_consumers(deployment)
            await self._ledger.ensure_consumer(deployment, priority)
            self._ledger.tell_waiting(deployment, priority)
            repairs.count(Repair.CONSUMER_MADE, "tasks waited without a consumer", consumer=name)
        owners = {name: name.rpartition("_")[0] for name in there}
        for name, deployment in owners.items():
            if deployment not in gone:
                continue
            try:
                await self._link.jetstream.delete_consumer(streams.TASKS, name)
            except nats.js.errors.NotFoundError:
                continue
            self._ledger.forget_consumers(deployment)
            reason = "its deployment was deleted"
            repairs.count(Repair.CONSUMER_REMOVED, reason, consumer=name)
        return set(owners.values())

    async def look_below_floors(self, repairs: Repairs, queue: Queue) -> None:
        """Ends tasks that their consumer is done with and that are still there.

        Those have used up their deliveries: all else leaves the queue before the consumer is done
        with it, or has ended. To be sure they must be there at two looks in a row.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        lanes, self._next_lane = _turn(sorted(queue.lanes), self._next_lane, MAX_LANES)
        before = self._below
        self._below = {lane: seen for lane, seen in before.items() if lane in queue.lanes}
        for lane in lanes:
            below = await self._below_floor(lane, queue.lanes[lane])
            self._below[lane] = frozenset(message.sequence for message in below)
            for message in below:
                if message.sequence in before.get(lane, ()):
                    await repairs.end_undelivered(message, streams.consumer(*lane))

    async def _below_floor(self, lane: tuple[str, int], count: int) -> list[StoredMessage]:
        """Tasks of a lane that have not ended and that its consumer is done with."""
        try:
            info = await self._link.jetstream.consumer_info(streams.TASKS, streams.consumer(*lane))
        except nats.js.errors.NotFoundError:
            return []
        coming = (info.num_pending or 0) + (info.num_ack_pending or 0)
        # With none of them delivered and unsettled, all that were delivered are done with.
        done = info.ack_floor if info.num_ack_pending else info.delivered
        if count <= coming or not done:
            return []
        found = await self._ledger.reader.read(
            streams.TASKS, subjects.lane(*lane), 1, count=READ_COUNT
        )
        below = [message for message in found if message.sequence <= done.stream_seq]
        return [message for message in below if not await self._has_ended(message.subject)]

    async def _has_ended(self, subject: str) -> bool:
        one = Queued.of(subject)
        if one is None:
            return True
        task = one.task
        return await self._ledger.ended(task.deployment, task.task_id, False) is not None

    async def look_at_progress(self, repairs: Repairs) -> None:
        """Forgets what is known of attempts of tasks that are not in the queue.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        paths: list[str] = []
        async for page in listing.subject_pages(self._link, streams.PROGRESS, subjects.PROGRESS):
            paths += page
        some, self._next_progress = _turn(sorted(paths), self._next_progress, MAX_PROGRESS)
        for path in some:
            deployment, task_id = path.split(".")[-2:]
            # Without its body, which may be large; and later than the record, which is made for
            # tasks in the queue only.
            where = subjects.any_task(deployment, task_id)
            queued = listing.subject_pages(self._link, streams.TASKS, where)
            if not [page async for page in queued]:
                await repairs.forget_progress(deployment, task_id)


def _turn(items: list[T], start: int, count: int) -> tuple[list[T], int]:
    """`count` items from `start` on and where to go on; from the first after the last."""
    if start >= len(items):
        start = 0
    return items[start : start + count], start + count
