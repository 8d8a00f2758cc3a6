"""Ends tasks that no replica ends: cancelled ones, and those whose time to live is over."""

from dataclasses import dataclass

import structlog

from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope, TaskProgress
from services.wire.instants import timestamp
from services.wire.server_clock import ServerClock
from services.wire.stored_publisher import NotStoredError
from services.wire.stream_reader import StoredMessage
from services.wire.tasks import states
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that was found in the queue.

    Attributes:
        sequence: of its message.
        envelope: the message.
    """

    sequence: int
    envelope: TaskEnvelope

    @property
    def task(self) -> Task:
        """As it was submitted."""
        return self.envelope.task


def waiting_of(message: StoredMessage) -> Waiting:
    """What a message of the queue holds."""
    return Waiting(message.sequence, TaskEnvelope.FromString(message.data))


def add_progress(task: Task, progress: TaskProgress) -> None:
    """Fills in what is known of a task's attempts."""
    if not progress.attempts:
        return
    task.attempts.extend(progress.attempts)
    task.attempt_count = progress.failed_count
    task.start_time.CopyFrom(progress.attempts[-1].start_time)
    task.error = progress.attempts[-1].error


class Endings:
    """Writes down that a task has ended, and then takes it out of the queue."""

    def __init__(self, ledger: TaskLedger, server_clock: ServerClock) -> None:
        """Ends nothing by itself."""
        self._ledger = ledger
        self._server_clock = server_clock

    def has_expired(self, task: Task) -> bool:
        """Whether a task that has not ended should have by now."""
        return bool(task.expire_time.ToNanoseconds() <= self._server_clock.now_s() * 1e9)

    async def expire(self, waiting: Waiting) -> Task:
        """Ends a task whose time to live is over; returns it as it ended, without its result.

        Raises:
            nats.errors.Error: if the server cannot be reached.
        """
        ttl_s = waiting.task.ttl.ToNanoseconds() / 1e9
        return await self.end(waiting, Task.STATE_EXPIRED, f"not ended within its ttl, {ttl_s:g} s")

    async def end(
        self, waiting: Waiting, state: Task.State, error: str, result_ttl_s: int | None = None
    ) -> Task:
        """Ends a task that waits or runs, unless it has ended.

        Args:
            waiting: the task.
            state: CANCELLED or EXPIRED.
            error: why, for a person.
            result_ttl_s: how long it is remembered; None means as long as its results.

        Returns:
            The task as it ended, without its result.

        Raises:
            services.wire.stored_publisher.NotStoredError: if there is no room to write it down.
            nats.errors.Error: if the server cannot be reached.
        """
        ids = (waiting.envelope.deployment, waiting.envelope.task_id)
        progress = await self._ledger.progress(*ids)
        task = Task()
        task.CopyFrom(waiting.task)
        add_progress(task, progress)
        task.state = states.step(states.QUEUED, state)
        task.outcome = states.OUTCOMES[state]
        task.error = f"{error}; last error: {task.error}" if task.error else error
        task.end_time.CopyFrom(timestamp(self._server_clock.now_s()))
        if result_ttl_s is not None:
            task.result_ttl.FromSeconds(result_ttl_s)
        if not await self._ledger.finish(task):
            ended = await self._ledger.ended(*ids, with_result=False)
            if ended is not None:
                await self._ledger.order_callback(ended)
                task = ended
        await self._ledger.remove_queued(waiting.sequence)
        self._ledger.tell_cancelled(*ids)
        if progress.ByteSize():
            await self._ledger.forget_progress(*ids)
        task.expire_time.FromNanoseconds(
            task.end_time.ToNanoseconds() + task.result_ttl.ToNanoseconds()
        )
        return task

    async def expire_if_room(self, waiting: Waiting) -> Task:
        """Likewise, for who only looks: shown as expired if there is no room to write it down."""
        try:
            return await self.expire(waiting)
        except NotStoredError as error:
            log.warning("task.expiry_not_written", task=waiting.task.name, error=str(error))
            shown = Task()
            shown.CopyFrom(waiting.task)
            shown.state = Task.STATE_EXPIRED
            return shown
