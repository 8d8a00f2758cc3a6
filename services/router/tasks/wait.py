"""Follows one task until it has ended.

Words on core NATS say when to look again; what is said to the caller is what was read. Nothing
depends on the arrival of a word: every POLL_S is looked in any case.
"""

import asyncio
from collections.abc import AsyncGenerator

import nats.errors
import structlog

from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEvent
from services.router.tasks.open_streams import OpenStreams
from services.router.tasks.views import TaskViews
from services.wire.nats_link import NatsLink
from services.wire.tasks import states, subjects

log = structlog.get_logger()

POLL_S = 2.0
FIRST_PAUSE_S = 0.005
"""The word that a task has ended may come before the server has stored it."""


class TaskWaiter:
    """WaitTask."""

    def __init__(self, link: NatsLink, views: TaskViews, streams: OpenStreams) -> None:
        """Waits for nothing yet."""
        self._link = link
        self._views = views
        self._streams = streams

    async def follow(
        self, deployment: str, task_id: str, tenant: str
    ) -> AsyncGenerator[Task, None]:
        """Yields a task at once and whenever it has changed; the last has ended.

        Raises:
            OutcomeError: NOT_FOUND if there is no such task, or it is forgotten meanwhile.
            nats.errors.Error: if the server cannot be reached at first.
        """
        words = _Words(asyncio.Event())
        with self._streams.one(words.changed, tenant):
            client = self._link.client
            ended = await client.subscribe_direct(
                subjects.ended(deployment, task_id), words.on_ended
            )
            try:
                event = await client.subscribe_direct(
                    subjects.event(deployment, task_id), words.on_event
                )
                try:
                    async for task in self._changes(deployment, task_id, tenant, words):
                        yield task
                finally:
                    await _unsubscribe(self._link, event)
            finally:
                await _unsubscribe(self._link, ended)

    async def _changes(
        self, deployment: str, task_id: str, tenant: str, words: "_Words"
    ) -> AsyncGenerator[Task, None]:
        said = b""
        pause_s = FIRST_PAUSE_S
        while True:
            words.changed.clear()
            try:
                task = words.added_to(await self._views.get(deployment, task_id, tenant))
            except (nats.errors.Error, TimeoutError) as error:
                if not said:
                    raise
                log.debug("wait.not_read", error=str(error) or type(error).__name__)
            else:
                now = task.SerializeToString(deterministic=True)
                if now != said:
                    said = now
                    yield task
                if task.state in states.TERMINAL:
                    return
            self._streams.check()
            if words.ended:
                pause_s = min(2 * pause_s, POLL_S)
            try:
                async with asyncio.timeout(pause_s if words.ended else POLL_S):
                    await words.changed.wait()
            except TimeoutError:
                pass
            self._streams.check()


class _Words:
    """What was heard of a task."""

    def __init__(self, changed: asyncio.Event) -> None:
        self.changed = changed
        self.ended = False
        self._event = TaskEvent()

    def on_ended(self, _: bytes, __: bytes, ___: bytes, ____: bytes | None) -> None:
        """Somebody is writing down that it has ended; not necessarily the first."""
        self.ended = True
        self.changed.set()

    def on_event(self, _: bytes, __: bytes, data: bytes, ___: bytes | None) -> None:
        """An agent says what becomes of it."""
        self._event = TaskEvent.FromString(data)
        self.changed.set()

    def added_to(self, task: Task) -> Task:
        """The task with what its agent said last, which is not written down anywhere."""
        event = self._event
        if task.state in states.TERMINAL or not event.state:
            return task
        if event.state == Task.STATE_RUNNING:
            task.state = Task.STATE_RUNNING
            task.start_time.CopyFrom(event.event_time)
            task.ClearField("next_attempt_time")
        elif event.state == Task.STATE_QUEUED:
            task.state = Task.STATE_QUEUED
            if event.HasField("next_attempt_time"):
                task.next_attempt_time.CopyFrom(event.next_attempt_time)
        if event.error:
            task.error = event.error
        return task


async def _unsubscribe(link: NatsLink, subscription: object) -> None:
    try:
        await link.client.unsubscribe_direct(subscription)
    except nats.errors.Error as error:
        log.debug("wait.not_unsubscribed", error=str(error))
