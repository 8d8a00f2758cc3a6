"""Submits the tasks of schedules, and finds those that it has submitted."""

from collections.abc import Sequence

import nats.js.errors
import structlog

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.envelope_pb2 import OUTCOME_CANCELLED, OUTCOME_NOT_FOUND
from forebay.v1.schedule_pb2 import Schedule
from forebay.v1.task_pb2 import SubmitTaskRequest, Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.runtime.clock import Clock
from services.wire.instants import timestamp
from services.wire.kv_mirror import KvMirror
from services.wire.names import deployment_name
from services.wire.nats_link import NatsLink
from services.wire.outcomes import OutcomeError
from services.wire.tasks import states, streams, subjects, submission
from services.wire.tasks.ledger import TaskLedger, task_ids

log = structlog.get_logger()


class Submitter:
    """Tasks of schedules, on their way into the queue.

    Every method raises nats.errors.Error if NATS cannot be reached, after which what was to be
    stored may be stored or not.
    """

    def __init__(
        self, link: NatsLink, ledger: TaskLedger, deployments: KvMirror, clock: Clock
    ) -> None:
        """Submits for deployments that are declared.

        Args:
            link: to NATS.
            ledger: stores tasks.
            deployments: what is declared, `spec.{deployment}`.
            clock: says when a task is made.
        """
        self._link = link
        self._ledger = ledger
        self._deployments = deployments
        self._clock = clock

    async def envelope(self, schedule: Schedule, tenant: str, key: str = "") -> TaskEnvelope:
        """The task of a schedule as it would be stored now.

        Args:
            schedule: as kept.
            tenant: whose it is.
            key: the same key makes the same task; empty makes a new one.

        Raises:
            OutcomeError: NOT_FOUND if its deployment is not there, INVALID_ARGUMENT if the task is
                not legal.
        """
        deployment = schedule.request.model_name
        declared = Deployment.FromString(await self._declared(deployment))
        declared.name = deployment_name(deployment)
        submitted = SubmitTaskRequest(request=schedule.request, task=schedule.task)
        submitted.task.idempotency_key = key
        return submission.envelope_of(submitted, declared, tenant, self._clock.wall_s())

    async def _declared(self, deployment: str) -> bytes:
        key = f"spec.{deployment}"
        entry = self._deployments.get(key)
        if entry is not None:
            return entry.value
        # What another autoscaler was told a moment ago may not have come here yet.
        try:
            found = await self._link.unless_lost(self._deployments.bucket.get(key))
        except nats.js.errors.KeyNotFoundError:
            raise OutcomeError(OUTCOME_NOT_FOUND, f"there is no deployment {deployment}") from None
        return found.value or b""

    async def store(self, envelope: TaskEnvelope) -> None:
        """Puts a task into the queue, and has its deployment woken if it is at zero.

        Raises:
            services.wire.stored_publisher.NotStoredError: if the queue refuses it.
        """
        await self._ledger.enqueue(envelope)
        # As routers do. A word that is lost costs a tick of the autoscaler.
        self._ledger.tell_waiting(envelope.deployment, envelope.task.priority)

    async def is_stored(self, name: str) -> bool:
        """Whether a task waits, runs or has ended and is not forgotten."""
        deployment, task_id = task_ids(name)
        # In this order: one that ends between the two looks is found by the second.
        if await self._ledger.queued(deployment, task_id) is not None:
            return True
        return await self._ledger.ended(deployment, task_id, with_result=False) is not None

    async def unended(self, task_names: Sequence[str]) -> list[str]:
        """Those of some tasks that wait or run."""
        pairs = {name: task_ids(name) for name in task_names}
        waiting = await self._ledger.reader.last_of_each(
            streams.TASKS, [subjects.any_task(*pair) for pair in pairs.values()]
        )
        queued = {subjects.parse_task(message.subject).task_id for message in waiting}
        left = {name: pair for name, pair in pairs.items() if pair[1] in queued}
        # A message outlives the word that its task has ended by a moment.
        ended = await self._ledger.reader.last_of_each(
            streams.ENDED, [subjects.ended(*pair) for pair in left.values()], max_bytes=1 << 30
        )
        over = {message.subject.split(".")[3] for message in ended}
        return [name for name, pair in left.items() if pair[1] not in over]

    async def cancel(self, name: str, why: str) -> None:
        """Ends a task that waits or runs; nothing if it has ended.

        Raises:
            services.wire.stored_publisher.NotStoredError: if there is no room to write it down.
        """
        deployment, task_id = task_ids(name)
        message = await self._ledger.queued(deployment, task_id)
        if message is None:
            return
        task = Task()
        task.CopyFrom(TaskEnvelope.FromString(message.data).task)
        progress = await self._ledger.progress(deployment, task_id)
        task.attempts.extend(progress.attempts)
        task.attempt_count = progress.failed_count
        task.state = states.CANCELLED
        task.outcome = OUTCOME_CANCELLED
        task.error = why
        task.end_time.CopyFrom(timestamp(self._clock.wall_s()))
        if await self._ledger.finish(task):
            log.info("schedule.cancelled_task", task=name, reason=why)
        await self._ledger.remove_queued(message.sequence)
        self._ledger.tell_cancelled(deployment, task_id)
