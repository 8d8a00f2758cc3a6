"""Carries out what one sweep repairs, and counts it.

Every repair can be done again, and by several at once: how a task ended is decided by the stream of
ended tasks, and a task is taken out of the queue only after that is written.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import nats.errors
import structlog
from google.protobuf.message import DecodeError

from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import DeadTask, TaskProgress
from services.autoscaler.leadership import NotLeadingError
from services.autoscaler.tasks import findings
from services.autoscaler.tasks.findings import Queued, Repair
from services.wire.server_clock import ServerClock
from services.wire.stored_publisher import NotStoredError
from services.wire.stream_reader import StoredMessage
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import TaskLedger, task_name

log = structlog.get_logger()

CONCURRENT = 64
READ_AT_ONCE = 200
ASKED_AT_ONCE = 1000
MAX_NAMED = 20
"""Repairs of one kind that are logged by name in one sweep; the others are counted."""

MAX_FAILURES = 100
"""After so many the sweep leaves the rest to the next one."""

T = TypeVar("T")


class Repairs:
    """What one sweep repairs.

    Attributes:
        counts: what was repaired.
        failures: what could not be repaired now, by reason; the next sweep tries again.
    """

    def __init__(self, ledger: TaskLedger, fence: Callable[[], None], clock: ServerClock) -> None:
        """Has repaired nothing.

        Args:
            ledger: of tasks.
            fence: raises NotLeadingError if this process does not lead; asked before each repair.
            clock: dates the ends.
        """
        self._ledger = ledger
        self._fence = fence
        self._clock = clock
        self.counts: Counter[Repair] = Counter()
        self.failures: Counter[str] = Counter()

    def count(self, repair: Repair, sentence: str, **what: object) -> None:
        """Counts a repair and logs it, unless many of its kind were logged before."""
        self.counts[repair] += 1
        if self.counts[repair] <= MAX_NAMED:
            log.info("tasks.repaired", repair=repair.value, reason=sentence, **what)

    async def end_all(self, repair: Repair, queued: Sequence[Queued]) -> None:
        """Ends tasks that wait, and takes them out of the queue."""
        for some in _chunks(queued, READ_AT_ONCE):
            found = await self._bodies([one.subject for one in some])
            tried = await self._progress(some)

            def ends(
                some: list[Queued] = some,
                found: dict[str, StoredMessage] = found,
                tried: dict[str, TaskProgress] = tried,
            ) -> Iterator[Coroutine[Any, Any, None]]:
                for one in some:
                    # Those that are not found have left the queue since they were seen.
                    if one.subject in found:
                        path = subjects.progress(one.task.deployment, one.task.task_id)
                        progress = tried.get(path, TaskProgress())
                        yield self.end(repair, one, found[one.subject], progress)

            await self._each(ends())

    async def end(
        self, repair: Repair, one: Queued, message: StoredMessage, progress: TaskProgress
    ) -> None:
        """Ends one task that waits, and takes it out of the queue."""
        self._fence()
        waited = findings.envelope(one.task, message.data)
        task = findings.end(repair, waited, progress, self._clock.now_s())
        if task.state == Task.STATE_FAILED:
            # Also of a deployment that was deleted: it may be there again when it is retried.
            await self._ledger.bury(DeadTask(task=task, envelope=waited))
        if await self._ledger.finish(task):
            # What a model said last may quote what it was given, which is not for logs.
            self.count(repair, findings.ENDS[repair][2], task=task.name)
        else:
            await self._order_callback_again(one)
        await self._ledger.remove_queued(message.sequence)
        # One that runs is stopped: nobody wants its result.
        self._ledger.tell_cancelled(one.task.deployment, one.task.task_id)
        if progress.ByteSize():
            await self._ledger.forget_progress(one.task.deployment, one.task.task_id)

    async def take_out_ended(self, waiting: Sequence[Queued]) -> None:
        """Takes tasks out of the queue that had ended already."""
        by_end = {_end_of(one): one for one in waiting}
        for some in _chunks(by_end, ASKED_AT_ONCE):
            found = await self._ledger.reader.last_of_each(streams.ENDED, some)
            await self._each(self._take_out(by_end[end.subject], end) for end in found)

    async def end_undelivered(self, message: StoredMessage, consumer: str) -> None:
        """Ends a task that has used up its deliveries.

        Args:
            message: in the queue.
            consumer: that has given it up.
        """
        one = Queued.of(message.subject)
        if one is None or streams.consumer(one.task.deployment, one.task.priority) != consumer:
            return
        progress = await self._ledger.progress(one.task.deployment, one.task.task_id)
        await self._each([self.end(Repair.UNDELIVERABLE, one, message, progress)])

    async def end_buried(self, deployment: str, task_id: str) -> bool:
        """Writes down the end of a task that has a dead letter and no end.

        Returns:
            Whether its dead letter or its end is there.
        """
        if await self._ledger.ended(deployment, task_id, with_result=False) is not None:
            return True
        try:
            # Read anew: one that was purged since is not to come back.
            dead = await self._ledger.dead(deployment, task_id)
        except DecodeError as error:
            name = task_name(deployment, task_id)
            log.error("tasks.unreadable_dead_letter", task=name, error=str(error))
            return True
        if dead is None:
            return False
        if findings.should_have_ended(dead, self._clock.now_s()):
            self._fence()
            dead.task.name = task_name(deployment, task_id)
            if await self._ledger.finish(dead.task):
                reason = "it had a dead letter, and no word that it had ended"
                self.count(Repair.BURIED, reason, task=dead.task.name)
        return True

    async def forget_progress(self, deployment: str, task_id: str) -> None:
        """Forgets what was known of attempts of a task that is not in the queue."""
        self._fence()
        await self._ledger.forget_progress(deployment, task_id)
        self.count(
            Repair.PROGRESS_FORGOTTEN,
            "it is not in the queue",
            task=task_name(deployment, task_id),
        )

    async def _take_out(self, one: Queued, message: StoredMessage) -> None:
        try:
            task = Task.FromString(message.data)
        except DecodeError as error:
            log.error("tasks.unreadable_end", subject=message.subject, error=str(error))
            return
        if not findings.has_settled(task, self._clock.now_s()):
            return
        queued = await self._ledger.queued(one.task.deployment, one.task.task_id)
        if queued is None:
            return
        self._fence()
        await self._ledger.order_callback(task)
        await self._ledger.remove_queued(queued.sequence)
        self.count(Repair.ENDED, "it had ended, and was still in the queue", task=task.name)

    async def _order_callback_again(self, one: Queued) -> None:
        # Who ended it may have died before the order; one within two minutes counts once.
        ended = await self._ledger.ended(one.task.deployment, one.task.task_id, with_result=False)
        if ended is not None:
            await self._ledger.order_callback(ended)

    async def _bodies(self, subject_list: Sequence[str]) -> dict[str, StoredMessage]:
        """Messages of the queue by subject; as many questions as their size asks for."""
        found: dict[str, StoredMessage] = {}
        missing = list(subject_list)
        while missing:
            some = await self._ledger.reader.last_of_each(streams.TASKS, missing)
            if not some:
                break
            found |= {message.subject: message for message in some}
            missing = [subject for subject in missing if subject not in found]
        return found

    async def _progress(self, some: Iterable[Queued]) -> dict[str, TaskProgress]:
        paths = [subjects.progress(one.task.deployment, one.task.task_id) for one in some]
        found = await self._ledger.reader.last_of_each(streams.PROGRESS, paths)
        return {message.subject: TaskProgress.FromString(message.data) for message in found}

    async def _each(self, repairs: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Does repairs side by side; one that fails does not stop the others."""
        rest = iter(repairs)

        ceased: list[NotLeadingError] = []

        async def work() -> None:
            for repair in rest:
                if ceased or self.failures.total() >= MAX_FAILURES:
                    repair.close()
                    continue
                try:
                    await repair
                except NotLeadingError as error:
                    ceased.append(error)
                except DecodeError as error:
                    # Will not get better: nothing but this project writes here.
                    log.error("tasks.unreadable_record", error=str(error))
                except (nats.errors.Error, NotStoredError, TimeoutError) as error:
                    self.failures[str(error) or type(error).__name__] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(work())
        if ceased:
            raise ceased[0]


def _end_of(one: Queued) -> str:
    return subjects.ended(one.task.deployment, one.task.task_id, one.task.batch)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
