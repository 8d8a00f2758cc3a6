"""What a task is now, put together from where its messages are.

Ended: it has its word in the stream of ended tasks. Else its message is in the queue: RUNNING if it
was delivered and does not wait for another attempt, QUEUED otherwise.
"""

import asyncio
from collections.abc import Sequence

from forebay.v1.envelope_pb2 import OUTCOME_NOT_FOUND
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskProgress
from services.router.tasks.endings import Endings, Waiting, add_progress, waiting_of
from services.router.tasks.lanes import Lanes
from services.wire.names import quoted
from services.wire.outcomes import OutcomeError
from services.wire.server_clock import ServerClock
from services.wire.tasks import states, streams, subjects
from services.wire.tasks.ledger import TaskLedger, task_name

PROGRESS_AT_ONCE = 200
"""Ten attempts with their errors are 10 KB; one answer has at most 4 MiB."""

EXPIRED_AT_ONCE = 32
"""Expired tasks that one look writes down side by side."""


class TaskViews:
    """Looks tasks up."""

    def __init__(
        self, ledger: TaskLedger, endings: Endings, lanes: Lanes, server_clock: ServerClock
    ) -> None:
        """Remembers nothing."""
        self._ledger = ledger
        self._endings = endings
        self._lanes = lanes
        self._server_clock = server_clock

    async def get(
        self, deployment: str, task_id: str, tenant: str, with_result: bool = True
    ) -> Task:
        """A task as it is now.

        Raises:
            OutcomeError: NOT_FOUND if there is none, or it is another tenant's.
            nats.errors.Error: if the server cannot be reached.
        """
        task = await self._ended(deployment, task_id, tenant, with_result)
        if task is not None:
            return task
        waiting = await self.waiting(deployment, task_id, tenant)
        if waiting is not None:
            if self._endings.has_expired(waiting.task):
                ended = await self._endings.expire_if_room(waiting)
                return await self._ended(deployment, task_id, tenant, with_result) or ended
            shown = (await self.describe([waiting]))[0]
            if shown.state not in states.TERMINAL or not with_result:
                return shown
            # It ended after it was found in the queue: what describes many leaves results out.
            return await self._ended(deployment, task_id, tenant, with_result) or shown
        # It may have ended between the two looks.
        task = await self._ended(deployment, task_id, tenant, with_result)
        if task is None:
            raise not_found(deployment, task_id)
        return task

    async def waiting(self, deployment: str, task_id: str, tenant: str) -> Waiting | None:
        """The message of a tenant's task in the queue; None if there is none.

        Raises:
            nats.errors.Error: if the server cannot be reached.
        """
        message = await self._ledger.queued(deployment, task_id)
        if message is None:
            return None
        waiting = waiting_of(message)
        return waiting if waiting.task.tenant == tenant else None

    async def describe(self, waiting: Sequence[Waiting]) -> list[Task]:
        """Tasks of the queue as they are now, at most 1000; those that have expired are ended.

        Raises:
            nats.errors.Error: if the server cannot be reached.
        """
        delivered = {
            lane: await self._lanes.delivered(*lane)
            for lane in {(w.envelope.deployment, w.task.priority) for w in waiting}
        }
        tried = [
            w for w in waiting if w.sequence <= delivered[w.envelope.deployment, w.task.priority]
        ]
        progress = await self._progress(tried)
        ended = await self._ended_meanwhile(waiting)
        running = {w.sequence for w in tried}
        gate = asyncio.Semaphore(EXPIRED_AT_ONCE)

        async def shown(one: Waiting) -> Task:
            if one.task.name in ended:
                return ended[one.task.name]
            if self._endings.has_expired(one.task):
                async with gate:
                    return await self._endings.expire_if_room(one)
            return self._shown(one, one.sequence in running, progress.get(one.task.name))

        return list(await asyncio.gather(*map(shown, waiting)))

    def _shown(self, waiting: Waiting, delivered: bool, progress: TaskProgress | None) -> Task:
        task = Task()
        task.CopyFrom(waiting.task)
        task.state = Task.STATE_RUNNING if delivered else Task.STATE_QUEUED
        if progress is not None:
            add_progress(task, progress)
            if progress.next_attempt_time.ToNanoseconds() > self._server_clock.now_s() * 1e9:
                task.state = Task.STATE_QUEUED
                task.next_attempt_time.CopyFrom(progress.next_attempt_time)
        return task

    async def _ended(
        self, deployment: str, task_id: str, tenant: str, with_result: bool
    ) -> Task | None:
        task = await self._ledger.ended(deployment, task_id, with_result)
        return task if task is not None and task.tenant == tenant else None

    async def _progress(self, tried: Sequence[Waiting]) -> dict[str, TaskProgress]:
        found: dict[str, TaskProgress] = {}
        for begin in range(0, len(tried), PROGRESS_AT_ONCE):
            part = tried[begin : begin + PROGRESS_AT_ONCE]
            wanted = [subjects.progress(w.envelope.deployment, w.envelope.task_id) for w in part]
            for message in await self._ledger.reader.last_of_each(streams.PROGRESS, wanted):
                found[_name(message.subject)] = TaskProgress.FromString(message.data)
        return found

    async def _ended_meanwhile(self, waiting: Sequence[Waiting]) -> dict[str, Task]:
        """Those whose message is still in the queue though they have ended, without results."""
        wanted = [
            subjects.ended(w.envelope.deployment, w.envelope.task_id, w.task.batch) for w in waiting
        ]
        found = await self._ledger.reader.last_of_each(streams.ENDED, wanted)
        ended = {}
        for message in found:
            task = Task.FromString(message.data)
            task.ClearField("result")
            ended[task.name] = task
        return ended


def _name(subject: str) -> str:
    """Name of the task of a subject whose third and fourth words are its deployment and id."""
    _, _, deployment, task_id, *_ = subject.split(".")
    return task_name(deployment, task_id)


def not_found(deployment: str, task_id: str) -> OutcomeError:
    """What is said of a task that there is not."""
    return OutcomeError(
        OUTCOME_NOT_FOUND,
        f"{quoted(task_name(deployment, task_id))} is not found: there is no such task, it is "
        "forgotten since its result_ttl is over, or it is another tenant's",
    )
