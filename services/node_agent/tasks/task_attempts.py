"""Takes each delivered task through its attempt, and decides what becomes of it.

A slot is held from the delivery until Triton has answered. What follows, storing how it ended, does
not hold one: the next task runs meanwhile.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from forebay.v1.envelope_pb2 import (
    OUTCOME_ABORTED,
    OUTCOME_CANCELLED,
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_OK,
    OUTCOME_UNAVAILABLE,
)
from services.node_agent import attempt
from services.node_agent.attempt import Answer
from services.node_agent.tallies import Tallies
from services.node_agent.tasks import retry_policy, timeout_parameter
from services.node_agent.tasks.ongoing_task import OngoingTask
from services.node_agent.tasks.retry_policy import Verdict
from services.node_agent.tasks.settlement import Settlement
from services.node_agent.tasks.slots import Slots
from services.node_agent.tasks.task_trace import TaskTrace
from services.node_agent.tasks.usage_notes import UsageNotes
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.triton.triton_client import TritonClient
from services.runtime.clock import Clock
from services.runtime.model_messages import for_record
from services.wire.tasks import states

log = structlog.get_logger()

OVER_LIMIT_S = 2.0
"""A model that obeys its time limit has so long to say so; then its Triton is ended. If others were
inside, the attempt does not count: the task runs alone next, which shows whose fault it was."""

CANCEL_GRACE_S = 5.0
"""A cancelled task may run on for so long before its Triton is ended, if it is alone there."""

EARLY_S = 0.1
"""A task may be tried so long before its time: the queue's timers are no better."""

TURN_LOOK_S = 0.02
MAX_UNSTORED = 256
MAX_UNSTORED_BYTES = 32 << 20
"""Answers that are kept while they cannot be stored; with more, no task is taken."""

_PROGRESS = b"+WPI"
_Ending = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Share:
    """What a task has of a replica, for usage.

    Attributes:
        deployment: id of the deployment.
        slots: of the replica.
        gpus: of the replica.
    """

    deployment: str
    slots: int
    gpus: float


class TaskAttempts:
    """The tasks in one Triton.

    Attributes:
        held: tasks that were delivered and are not settled, by id.
        answered_count: tasks that Triton answered.
        lost_count: tasks that were inside when Triton died or was ended for one of them.
        excused: Triton died of a task that had been in one that died before, or was ended for one
            that was cancelled: the replica is not to blame.
    """

    def __init__(
        self,
        share: Share,
        slots: Slots,
        client: TritonClient,
        clock: Clock,
        settlement: Settlement,
        tallies: Tallies,
        usage: UsageNotes,
        give_up: Callable[[str], None],
        trace: ReplicaTrace,
    ) -> None:
        """Holds nothing.

        Args:
            share: what each has of the replica.
            slots: shared with requests.
            client: of its Triton.
            clock: this machine's.
            settlement: ends deliveries.
            tallies: what is counted.
            usage: what was done for whom.
            give_up: has Triton started anew, and says why.
            trace: what spans say of the replica.
        """
        self._share = share
        self._slots = slots
        self._client = client
        self._clock = clock
        self._settlement = settlement
        self._tallies = tallies
        self._usage = usage
        self._give_up = give_up
        self._trace = trace
        self._leaving = False
        self._unstored_count = 0
        self._unstored_bytes = 0
        self._side_jobs: set[asyncio.Task[None]] = set()
        self.held: dict[str, OngoingTask] = {}
        self.answered_count = 0
        self.lost_count = 0
        self.excused = False

    @property
    def backlogged(self) -> bool:
        """Whether so many answers wait to be stored that no task should be taken."""
        return self._unstored_count >= MAX_UNSTORED or self._unstored_bytes >= MAX_UNSTORED_BYTES

    def take(self, task: OngoingTask) -> None:
        """Begins with a task that was delivered."""
        task_id = task.envelope.task_id
        before = self.held.get(task_id)
        if before is not None:
            # It was cancelled and submitted anew under its key, while Triton works on it.
            self.held[_second_key(before)] = before
        self.held[task_id] = task
        self._slots.task_came(task.delivered_s)
        task.job = asyncio.get_running_loop().create_task(self._serve(task))

    def watch(self, now_s: float, ack_wait_s: float) -> None:
        """Keeps deliveries from being given to others, and ends what has run for too long."""
        for task in list(self.held.values()):
            if now_s - task.progress_s >= ack_wait_s / 3:
                task.progress_s = now_s
                self._settlement.say(task, _PROGRESS)
            if not task.runs or task.over_limit:
                continue
            since_s = self._slots.line.at_work_since_s(id(task))
            if since_s is not None and now_s - since_s > task.limit_s + OVER_LIMIT_S:
                self._end_overdue(task)
            elif (
                task.cancelled_s is not None
                and now_s - task.cancelled_s > CANCEL_GRACE_S
                and not self._side_jobs
            ):
                self._aside(self._stop_cancelled(task))

    def cancel(self, task_id: str) -> bool:
        """Takes note that a task was cancelled; False if it is not here."""
        task = self.held.get(task_id)
        if task is not None and task.cancelled_s is None:
            task.cancelled_s = self._clock.monotonic_s()
        return task is not None

    def leave(self) -> None:
        """What waits for its turn is given back; what runs goes on."""
        self._leaving = True

    async def settled(self, timeout_s: float) -> None:
        """Waits until everything is settled, but no longer than so many seconds."""
        jobs = [task.job for task in self.held.values() if task.job is not None]
        if jobs:
            await asyncio.wait(jobs, timeout=timeout_s)

    async def give_back_running(self, timeout_s: float) -> None:
        """Gives back what Triton still works on, so that another replica runs it."""
        running = [task for task in self.held.values() if task.runs]
        for task in running:
            log.info("task.given_back", task_id=task.envelope.task_id)
            self._end_job(task)
        endings = [self._settlement.give_back(task) for task in running]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*endings)
        except TimeoutError:
            log.warning("task.given_back_unrecorded", tasks=len(running))

    async def close(self) -> None:
        """Ends whatever is still going on; what is not settled is delivered again."""
        self._leaving = True
        left = list(self.held.values())
        for task in left:
            self._settlement.give_back_now(task)
            self._end_job(task)
        jobs = [task.job for task in left if task.job is not None]
        for job in self._side_jobs:
            job.cancel()
        await asyncio.gather(*jobs, *self._side_jobs, return_exceptions=True)

    async def _serve(self, task: OngoingTask) -> None:
        size = 0
        try:
            try:
                ending, size = await self._decide(task)
                self._unstored_count += 1
                self._unstored_bytes += size
            finally:
                if task.alone:
                    self._slots.alone_over()
                self._slots.task_left(self._clock.monotonic_s())
            try:
                await ending
            finally:
                self._unstored_count -= 1
                self._unstored_bytes -= size
        except asyncio.CancelledError:
            raise
        except Exception:
            # Delivered again after the ack wait.
            log.exception("task.defect", task_id=task.envelope.task_id)
        finally:
            for key in (task.envelope.task_id, _second_key(task)):
                if self.held.get(key) is task:
                    del self.held[key]

    async def _decide(self, task: OngoingTask) -> tuple[_Ending, int]:
        """What is to be done to settle a task, and how many bytes that keeps in memory."""
        settlement = self._settlement
        if task.delivery > 1:
            ending = await self._recall(task)
            if ending is not None:
                return ending, 0
        if not self._slots.may_start(task.alone) and not await self._turn(task):
            return settlement.give_back(task), 0
        if task.cancelled_s is not None:
            ended = await settlement.how_it_ended(task)
            if ended is not None:
                return settlement.drop(task, ended), 0
        if settlement.is_expired(task):
            self._tallies.count_task(OUTCOME_DEADLINE_EXCEEDED)
            return settlement.expire(task), 0
        if self._slots.lost:
            return settlement.give_back(task), 0
        return await self._attempt(task)

    async def _recall(self, task: OngoingTask) -> _Ending | None:
        """What is known of a task that was delivered before; what settles it, if that is clear."""
        settlement = self._settlement
        ended = await settlement.how_it_ended(task)
        if ended is not None:
            return settlement.drop(task, ended)
        task.known = await settlement.known(task)
        if task.known.alone:
            self._slots.wait_alone()
            task.alone = True
        lost = retry_policy.agents_lost(task.delivery, task.known.delivery_count)
        if lost >= retry_policy.MAX_LOST_DELIVERIES:
            why = f"{lost} deliveries of this task ended with an agent that died or did not answer"
            return settlement.fail(task, settlement.attempt(task, OUTCOME_ABORTED, why))
        early_s = settlement.early_s(task)
        if early_s > EARLY_S:
            return settlement.not_yet(task, early_s)
        return None

    async def _turn(self, task: OngoingTask) -> bool:
        """Waits until a task may run, which is soon unless one runs alone; False on leaving."""
        while not self._slots.may_start(task.alone):
            if self._leaving or self._slots.lost:
                return False
            await asyncio.sleep(TURN_LOOK_S)
        return True

    async def _attempt(self, task: OngoingTask) -> tuple[_Ending, int]:
        settlement, slots = self._settlement, self._slots
        task.started_s = self._clock.monotonic_s()
        task.started_server_s = settlement.now_s()
        slots.started(id(task), task.started_s, task.alone)
        settlement.tell(task, states.RUNNING)
        trace = TaskTrace.start(task, self._trace)
        outcome, why = OUTCOME_CANCELLED, ""
        try:
            body = timeout_parameter.with_timeout(
                task.envelope.body, max(1, int(task.limit_s * 1000))
            )
            answer = await attempt.infer(body, self._client, trace.call_triton())
            outcome, why = answer.outcome, for_record(answer.message)
        except attempt.ReplicaLostError as error:
            outcome, why, answer = OUTCOME_UNAVAILABLE, str(error), None
        finally:
            task.stopped_s = self._clock.monotonic_s()
            slots.stopped(id(task), task.stopped_s, task.alone)
            self._tallies.count_task(outcome)
            self._note_usage(task, task.stopped_s - task.started_s)
            trace.stopped(outcome, why)
        if answer is None:
            return trace.settled(self._lost(task, why)), 0
        self.answered_count += 1
        service_time_s = task.stopped_s - task.started_s
        self._tallies.served(service_time_s, trace.trace_id, trace.wall_s)
        return trace.settled(self._answered(task, answer)), len(answer.body)

    def _answered(self, task: OngoingTask, answer: Answer) -> _Ending:
        settlement = self._settlement
        last = settlement.attempt(task, answer.outcome, answer.message)
        if answer.outcome == OUTCOME_OK:
            return settlement.succeed(task, last, answer.body)
        match retry_policy.judge(answer.outcome, answer.message, answer.too_large):
            case Verdict.FAIL:
                return settlement.fail(task, last)
            case Verdict.REFUSED:
                return settlement.refuse(task, last)
            case Verdict.RETRY:
                return settlement.count(task, last)

    def _lost(self, task: OngoingTask, reason: str) -> _Ending:
        """Triton has ended under a task."""
        settlement, slots = self._settlement, self._slots
        slots.note_loss()
        self.lost_count += 1
        if task.over_limit:
            why = (
                f"the model worked on this task for longer than attempt_timeout = {task.limit_s:g}"
                " s and was ended"
            )
            if task.suspect:
                return settlement.lost(task, why)
            self._blame(task)
            last = settlement.attempt(task, OUTCOME_DEADLINE_EXCEEDED, why)
            return settlement.count(task, last)
        if slots.recycled:
            return self._after_recycle(task)
        # Triton does not start a Python process that died again, and says ready all the same.
        self._give_up(f"the model's process died: {reason}")
        if slots.lost_together > 1:
            return settlement.lost(task, reason)
        self._blame(task)
        why = f"the replica died while it ran this task and nothing else: {reason}"
        return settlement.count(task, settlement.attempt(task, OUTCOME_ABORTED, why))

    def _blame(self, task: OngoingTask) -> None:
        # A model that dies of every task is broken; a task that kills models again and again is not
        # the model's fault, and there may be a hundred of them.
        self.excused = task.alone or task.known.failed_count > 0

    async def _after_recycle(self, task: OngoingTask) -> None:
        """Triton was ended on purpose, for another task or request, or for this one's cancel."""
        if task.cancelled_s is not None:
            ended = await self._settlement.how_it_ended(task)
            if ended is not None:
                await self._settlement.drop(task, ended)
                return
        await self._settlement.give_back(task)

    def _end_overdue(self, task: OngoingTask) -> None:
        log.warning(
            "task.over_limit",
            task_id=task.envelope.task_id,
            trace_id=task.envelope.task.trace_id or task.envelope.task_id,
            limit_s=task.limit_s,
        )
        # Settled when its call fails, which it does once Triton is ended.
        task.over_limit = True
        # Triton may have taken them in another order, or together.
        task.suspect = len(self._slots.line) > 1
        self._slots.recycled = True
        self._give_up("a task ran longer than its attempt_timeout")

    async def _stop_cancelled(self, task: OngoingTask) -> None:
        if self._slots.recycled or self._slots.running > 1 or self._slots.requests:
            return
        ended = await self._settlement.how_it_ended(task)
        alone = self._slots.running == 1 and not self._slots.requests
        if ended is None or not task.runs or not alone:
            return
        log.info("task.stopped", task_id=task.envelope.task_id)
        self._slots.recycled = True
        self.excused = True
        self._give_up("a cancelled task ran on")

    def _note_usage(self, task: OngoingTask, busy_s: float) -> None:
        share, options = self._share, task.envelope.task
        self._usage.add(
            share.deployment, options.tenant, options.batch, busy_s, share.slots, share.gpus
        )

    def _end_job(self, task: OngoingTask) -> None:
        if task.job is not None:
            task.job.cancel()

    def _aside(self, work: _Ending) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._side_jobs.add(job)
        job.add_done_callback(self._side_jobs.discard)


def _second_key(task: OngoingTask) -> str:
    return f"{task.envelope.task_id} {id(task)}"
