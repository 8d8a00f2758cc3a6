"""Cancels, retries and purges tasks."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from forebay.v1.task_pb2 import Task
from services.router.refusals import NotPossibleError
from services.router.tasks.calls import TaskCall
from services.router.tasks.endings import Endings, Waiting, waiting_of
from services.router.tasks.lanes import Lanes
from services.router.tasks.selection import NOT_ENDED, Selection
from services.router.tasks.submit import Submitter
from services.router.tasks.views import TaskViews, not_found
from services.wire.server_clock import ServerClock
from services.wire.tasks import states, streams
from services.wire.tasks.ledger import TaskLedger, task_name

T = TypeVar("T")
R = TypeVar("R")

READ_COUNT = 500

AT_ONCE = 64
"""Tasks that a purge works on side by side."""

MAX_COPIES = 10
"""A position of a batch that was submitted again after JetStream's window is in the queue twice."""

TOMBSTONE_MARGIN_S = 60

PURGED = "purged"
"""What is said of a task that was purged while it may have run."""


class TaskChanges:
    """What callers do to tasks."""

    def __init__(
        self,
        ledger: TaskLedger,
        views: TaskViews,
        endings: Endings,
        lanes: Lanes,
        submitter: Submitter,
        server_clock: ServerClock,
    ) -> None:
        """Puts the parts together."""
        self._ledger = ledger
        self._views = views
        self._endings = endings
        self._lanes = lanes
        self._submitter = submitter
        self._server_clock = server_clock

    async def cancel(self, deployment: str, task_id: str, tenant: str) -> Task:
        """Ends a task that has not ended; returns it as it ended, without its result.

        Raises:
            OutcomeError: NOT_FOUND if there is no such task.
            services.wire.stored_publisher.NotStoredError: if there is no room to write it down.
            nats.errors.Error: if the server cannot be reached; do it again.
        """
        ended: Task | None = None
        for _ in range(MAX_COPIES):
            waiting = await self._views.waiting(deployment, task_id, tenant)
            if waiting is None:
                break
            if self._endings.has_expired(waiting.task):
                ended = await self._endings.expire(waiting)
            else:
                ended = await self._endings.end(waiting, Task.STATE_CANCELLED, "cancelled")
        if ended is not None:
            return ended
        return await self._views.get(deployment, task_id, tenant, with_result=False)

    async def retry(self, deployment: str, task_id: str, call: TaskCall) -> Task:
        """Submits a failed task again, as a new one; returns that, also if it was done before.

        Raises:
            OutcomeError: NOT_FOUND if there is no such task, NotPossibleError if it has not failed
                or its dead letter has gone, and whatever submitting it raises.
            nats.errors.Error: if the server cannot be reached.
        """
        dead = await self._ledger.dead(deployment, task_id)
        if dead is not None and dead.envelope.task.tenant != call.tenant:
            raise not_found(deployment, task_id)
        ended = await self._ledger.ended(deployment, task_id, with_result=False)
        if ended is None and dead is None:
            # Waits, runs or is not there.
            ended = await self._views.get(deployment, task_id, call.tenant, with_result=False)
        if ended is not None:
            if ended.tenant != call.tenant:
                raise not_found(deployment, task_id)
            if ended.state != Task.STATE_FAILED:
                raise NotPossibleError(
                    f"{ended.name} is {states.word(ended.state)}; only failed tasks can be "
                    "retried. Submit it anew"
                )
        if dead is None:
            raise NotPossibleError(
                f"{task_name(deployment, task_id)} failed, but its dead letter, which has its "
                "request, is gone: the oldest make room after 14 days or 512 MiB. Submit it anew"
            )
        if ended is None and await self._views.waiting(deployment, task_id, call.tenant):
            raise NotPossibleError(
                f"{task_name(deployment, task_id)} is about to fail; retry it in a second"
            )
        envelope, is_new = await self._submitter.store_again(dead, call)
        if is_new:
            return envelope.task
        return await self._views.get(deployment, envelope.task_id, call.tenant)

    async def purge(self, selection: Selection, validate_only: bool) -> int:
        """Forgets tasks; returns how many.

        Of a task that a replica may still be running, the word that it was cancelled stays until
        that attempt must be over: without it, what the replica writes then would count.

        Raises:
            services.wire.stored_publisher.NotStoredError: if a task cannot be cancelled.
            nats.errors.Error: if the server cannot be reached; do it again for the rest.
        """
        until_s = self._server_clock.now_s()
        count = 0
        if selection.states & NOT_ENDED:
            count += await self._purge_waiting(selection, until_s, validate_only)
        if selection.states - NOT_ENDED:
            count += await self._purge_ended(selection, until_s, validate_only)
        return count

    async def _purge_waiting(
        self, selection: Selection, until_s: float, validate_only: bool
    ) -> int:
        count, sequence = 0, 1
        while True:
            found = await self._ledger.reader.read(
                streams.TASKS, selection.waiting_subject, sequence, READ_COUNT
            )
            waiting = [w for w in map(waiting_of, found) if selection.has(w.task)]
            described = await self._views.describe(waiting)
            chosen = [
                w
                for w, task in zip(waiting, described, strict=True)
                if task.state in selection.states & NOT_ENDED
            ]
            count += len(chosen)
            if chosen and not validate_only:
                await self._cancel_and_forget(chosen)
            if not found or found[-1].stored_s > until_s:
                return count
            sequence = found[-1].sequence + 1

    async def _cancel_and_forget(self, chosen: Sequence[Waiting]) -> None:
        ended = await _all(self._cancel, chosen)
        # Asked after their messages were taken away: what was not delivered by then never is.
        delivered = {
            lane: await self._lanes.delivered(*lane, kept_s=0) for lane in set(map(_lane, chosen))
        }
        never_ran = [
            task
            for waiting, task in zip(chosen, ended, strict=True)
            if waiting.sequence > delivered[_lane(waiting)]
        ]
        await _all(self._ledger.forget_ended, never_ran)

    async def _cancel(self, waiting: Waiting) -> Task:
        task = waiting.task
        # However long its results would be kept.
        kept_s = int(task.attempt_timeout.ToSeconds()) + TOMBSTONE_MARGIN_S
        return await self._endings.end(waiting, Task.STATE_CANCELLED, PURGED, kept_s)

    async def _purge_ended(self, selection: Selection, until_s: float, validate_only: bool) -> int:
        count, sequence = 0, 1
        while True:
            found = await self._ledger.reader.read(
                streams.ENDED, selection.ended_subject, sequence, READ_COUNT
            )
            tasks = [Task.FromString(message.data) for message in found]
            chosen = [
                t
                for t in tasks
                if selection.has(t) and t.state in selection.states and not _is_tombstone(t)
            ]
            count += len(chosen)
            if not validate_only:
                await _all(self._ledger.forget_ended, chosen)
            if not found or found[-1].stored_s > until_s:
                return count
            sequence = found[-1].sequence + 1


def _is_tombstone(task: Task) -> bool:
    """Whether what is kept of a task is only that what its replica writes is not to count."""
    return task.state == Task.STATE_CANCELLED and task.error.partition(";")[0] == PURGED


def _lane(waiting: Waiting) -> tuple[str, int]:
    return waiting.envelope.deployment, waiting.task.priority


async def _all(work: Callable[[T], Awaitable[R]], things: Sequence[T]) -> list[R]:
    """Does the same for each, AT_ONCE side by side; raises the error of the first that failed."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(thing: T) -> R:
        async with gate:
            return await work(thing)

    done = await asyncio.gather(*map(one, things), return_exceptions=True)
    results: list[R] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
