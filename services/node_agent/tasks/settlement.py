"""Ends deliveries of tasks: what is to be known of them is stored first, then the queue is told.

While NATS is away, or has no room, each waits until it can be stored: a task is never lost and its
result is not thrown away for that. Said once, not for each try.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats.errors
import nats.js.errors
import structlog

from forebay.v1.envelope_pb2 import OUTCOME_ABORTED, Outcome
from forebay.v1.task_pb2 import Task, TaskAttempt
from forebay.v1.task_record_pb2 import TaskProgress
from services.node_agent.tasks import records, retry_policy
from services.node_agent.tasks.ongoing_task import OngoingTask
from services.wire.nats_link import NatsLink
from services.wire.outcomes import LABELS
from services.wire.server_clock import ServerClock
from services.wire.stored_publisher import NotStoredError
from services.wire.tasks import states, streams, subjects
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 2.0

_ACK, _TERM = b"+ACK", b"+TERM"
_UNSURE = (nats.errors.Error, nats.js.errors.Error, NotStoredError, TimeoutError)

T = TypeVar("T")


class Settlement:
    """Settles the tasks of one replica.

    Attributes:
        returns: called with the seconds after which a task that was given back can be had again.
    """

    def __init__(
        self,
        replica_id: str,
        node: str,
        ledger: TaskLedger,
        link: NatsLink,
        server_clock: ServerClock,
        returns: Callable[[float], None],
    ) -> None:
        """Writes in the name of a replica and its node."""
        self._replica_id = replica_id
        self._node = node
        self._ledger = ledger
        self._link = link
        self._server_clock = server_clock
        self._returns = returns
        self._complained = False

    def now_s(self) -> float:
        """Seconds since the epoch on nats-server's clock."""
        return self._server_clock.waited_s(0)

    def is_expired(self, task: OngoingTask) -> bool:
        """Whether a task's time to live is over."""
        return self._server_clock.waited_s(task.envelope.task.expire_time.ToNanoseconds()) > 0

    def early_s(self, task: OngoingTask) -> float:
        """Seconds until a task may be tried again; 0 or less if it may be now."""
        known = task.known
        if not known.HasField("next_attempt_time"):
            return 0.0
        return float(known.next_attempt_time.ToNanoseconds() / 1e9 - self.now_s())

    def attempt(self, task: OngoingTask, outcome: Outcome, error: str = "") -> TaskAttempt:
        """The attempt at a task, which ends now."""
        now_s = self.now_s()
        return records.attempt(task, now_s, self._replica_id, self._node, outcome, error)

    async def succeed(self, task: OngoingTask, last: TaskAttempt, body: bytes) -> None:
        """Writes down that a task succeeded, with its result."""
        await self._finish(task, records.succeeded(task, last), body)
        self._settle(task, _ACK)

    async def expire(self, task: OngoingTask) -> None:
        """Writes down that a task was not run in time."""
        await self._finish(task, records.expired(task, self.now_s()))
        self._settle(task, _ACK)

    async def fail(self, task: OngoingTask, last: TaskAttempt) -> None:
        """Writes down that a task failed; it is kept, so that it can be tried again."""
        if await self._is_over(task):
            self._settle(task, _ACK)
            return
        dead = records.failed(task, last)
        log.warning("task.failed", outcome=LABELS[last.outcome], **self._which(task))
        await self._surely(lambda: self._ledger.bury(dead), task)
        await self._finish(task, dead.task)
        self._settle(task, _TERM)

    async def count(self, task: OngoingTask, last: TaskAttempt) -> None:
        """Writes down an attempt that counts; the task is tried again, or has failed."""
        options = task.envelope.task
        failed_count = task.attempt
        if not retry_policy.may_retry(failed_count, options.max_retries):
            await self.fail(task, last)
            return
        delay_s = retry_policy.backoff_s(
            failed_count,
            options.min_backoff.ToNanoseconds() / 1e9,
            options.max_backoff.ToNanoseconds() / 1e9,
            secrets.randbelow(1000) / 1000,
        )
        now_s = self.now_s()
        # What expires meanwhile is delivered then, and ended.
        delay_s = max(0.0, min(delay_s, options.expire_time.ToNanoseconds() / 1e9 - now_s))
        progress = records.after_failure(task, last, now_s + delay_s)
        log.info(
            "task.attempt_failed",
            attempt=failed_count,
            outcome=LABELS[last.outcome],
            again_in_s=round(delay_s, 3),
            **self._which(task),
        )
        await self._again(task, progress, delay_s, last.error)

    async def lost(self, task: OngoingTask, reason: str) -> None:
        """A replica died while others were inside, too: the task runs alone next."""
        log.warning("task.replica_lost", reason=reason[:300], **self._which(task))
        if task.known.lost_count >= retry_policy.MAX_LOSSES:
            error = f"{task.known.lost_count} replicas died while they ran this task: {reason}"
            await self.count(task, self.attempt(task, OUTCOME_ABORTED, error))
            return
        await self._again(task, records.after_loss(task), retry_policy.GIVEN_BACK_S, reason)

    async def refuse(self, task: OngoingTask, last: TaskAttempt) -> None:
        """Triton was busy: a little later again, unless it has been so for too long."""
        refused = records.refused_count(task.known) + 1
        if refused > retry_policy.MAX_REFUSALS:
            await self.count(task, last)
            return
        delay_s = retry_policy.refusal_s(refused)
        await self._again(task, records.given_back(task), delay_s, last.error)

    async def give_back(self, task: OngoingTask) -> None:
        """Has a task delivered again, and counts nothing."""
        delay_s = retry_policy.given_back_s(records.refused_count(task.known))
        await self._again(task, records.given_back(task), delay_s, "")

    async def not_yet(self, task: OngoingTask, delay_s: float) -> None:
        """A task came before it may be tried again."""
        progress = records.given_back(task)
        progress.next_attempt_time.CopyFrom(task.known.next_attempt_time)
        await self._again(task, progress, delay_s, "")

    async def drop(self, task: OngoingTask, ended: Task) -> None:
        """Takes a task out of the queue that had ended before."""
        await self._surely(lambda: self._ledger.order_callback(ended), task)
        self._settle(task, _ACK)

    async def how_it_ended(self, task: OngoingTask) -> Task | None:
        """The task as it ended; None if it has not."""
        envelope = task.envelope
        return await self._surely(
            lambda: self._ledger.ended(envelope.deployment, envelope.task_id, with_result=False),
            task,
        )

    async def known(self, task: OngoingTask) -> TaskProgress:
        """What is known of a task that was tried before."""
        envelope = task.envelope
        return await self._surely(
            lambda: self._ledger.progress(envelope.deployment, envelope.task_id), task
        )

    def give_back_now(self, task: OngoingTask) -> None:
        """Has a task delivered again without a record of it: there is no time to wait for one."""
        if not task.silenced:
            self._nak(task, retry_policy.GIVEN_BACK_S)
            task.silenced = True

    def say(self, task: OngoingTask, verb: bytes) -> None:
        """Tells the queue of a delivery, if it can be told."""
        if task.silenced:
            return
        try:
            self._link.client.send(task.ack_subject, verb)
        except nats.errors.Error as error:
            # Delivered again after the ack wait; by then it has ended, or is tried again.
            log.info("task.not_settled", error=type(error).__name__, **self._which(task))

    def tell(
        self, task: OngoingTask, state: Task.State, error: str = "", next_s: float | None = None
    ) -> None:
        """Tells whoever listens what becomes of a task."""
        if not self._link.client.is_connected:
            return
        envelope = task.envelope
        payload = records.event(task, state, self.now_s(), self._replica_id, error, next_s)
        self._link.client.send(subjects.event(envelope.deployment, envelope.task_id), payload)

    async def _is_over(self, task: OngoingTask) -> bool:
        """Whether a task was ended by somebody else, which may have been forgotten since.

        What follows would be a second end. Asked only where there may have been a word of it.
        """
        if task.cancelled_s is None and task.connections == self._link.connections:
            return False
        envelope, sequence = task.envelope, task.sequence
        if await self.how_it_ended(task) is not None:
            # Writing an end finds that out, too, and sees to its callback.
            return False
        where = subjects.any_task(envelope.deployment, envelope.task_id)
        found = await self._surely(
            lambda: self._ledger.reader.read(streams.TASKS, where, sequence, count=1), task
        )
        return not found or found[0].sequence != sequence

    async def _finish(self, task: OngoingTask, ended: Task, body: bytes = b"") -> None:
        if await self._is_over(task):
            log.info("task.forgotten", **self._which(task))
            return
        if await self._surely(lambda: self._ledger.finish(ended, body), task):
            return
        # It had ended before: by somebody else, or by us, who could not settle it.
        before = await self.how_it_ended(task)
        if before is not None:
            await self._surely(lambda: self._ledger.order_callback(before), task)

    async def _again(
        self, task: OngoingTask, progress: TaskProgress, delay_s: float, error: str
    ) -> None:
        envelope = task.envelope
        await self._surely(
            lambda: self._ledger.keep_progress(envelope.deployment, envelope.task_id, progress),
            task,
        )
        self.tell(task, states.QUEUED, error, self.now_s() + delay_s)
        self._nak(task, delay_s)
        self._returns(delay_s)

    def _nak(self, task: OngoingTask, delay_s: float) -> None:
        # A delay of 0 would mean at once, before others of its lane.
        delay_ns = max(1_000_000, int(delay_s * 1e9))
        self._settle(task, b'-NAK {"delay":%d}' % delay_ns)

    def _settle(self, task: OngoingTask, verb: bytes) -> None:
        self.say(task, verb)
        task.silenced = True

    async def _surely(self, work: Callable[[], Awaitable[T]], task: OngoingTask) -> T:
        """Does what needs NATS, again and again until it is done."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                done = await work()
            except _UNSURE as error:
                if not self._complained:
                    reason = str(error) or type(error).__name__
                    log.warning("task.not_stored_yet", reason=reason, **self._which(task))
                self._complained = True
                await asyncio.sleep(pause_s)
                pause_s = min(MAX_PAUSE_S, pause_s * 2)
            else:
                self._complained = False
                return done

    def _which(self, task: OngoingTask) -> dict[str, object]:
        return {
            "task_id": task.envelope.task_id,
            "trace_id": task.envelope.task.trace_id or task.envelope.task_id,
            "delivery": task.delivery,
            "replica": self._replica_id,
        }
