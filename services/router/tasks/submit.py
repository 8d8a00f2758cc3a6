"""Stores a task: checked, told from one that was stored before, and on disk when it returns.

A publish that was not confirmed may have been stored: it is repeated with the same message id, of
which JetStream keeps one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import nats.errors
import structlog

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.envelope_pb2 import (
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_NOT_FOUND,
    OUTCOME_OK,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
    Outcome,
)
from forebay.v1.task_pb2 import SubmitTaskRequest, Task
from forebay.v1.task_record_pb2 import DeadTask, TaskEnvelope
from services.router.counters import RouterCounters
from services.router.directory import DeploymentDirectory
from services.router.refusals import AlreadyThereError
from services.router.tasks.calls import TaskCall
from services.router.tasks.gathering import Gathering
from services.router.tasks.notices import WaitingNotices
from services.router.tasks.room import Room
from services.runtime import telemetry
from services.runtime import trace_words as words
from services.wire import names
from services.wire.nats_link import NatsLink
from services.wire.outcomes import LABELS, STATUS, OutcomeError
from services.wire.server_clock import ServerClock
from services.wire.stored_publisher import NotStoredError, Stored, StreamFullError
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import TaskLedger
from services.wire.tasks.submission import envelope_of, is_keyed, is_known_for_life

log = structlog.get_logger()

T = TypeVar("T")

MAX_SUBMITTING_BYTES = 64 << 20
"""Tasks on their way to JetStream, for all calls together."""

OWN_BYTES = 2048
"""What a task costs here beside its content."""

REPEAT_AFTER_S = (0.1, 0.3, 0.6, 1.0, 2.0, 2.0)
"""Pauses before a publish is repeated: together longer than a nats-server takes to start again."""

REPEAT_FOR_S = 10.0

MAX_KNOWN = 20_000

MAX_TURNS = 20
"""Tasks of one key that were stored and purged within JetStream's window for duplicates."""


class Submitter:
    """Tasks into the queue."""

    def __init__(
        self,
        link: NatsLink,
        directory: DeploymentDirectory,
        ledger: TaskLedger,
        server_clock: ServerClock,
        counters: RouterCounters,
        notices: WaitingNotices,
        stopping: asyncio.Event,
    ) -> None:
        """Puts the parts together."""
        self._directory = directory
        self._ledger = ledger
        self._server_clock = server_clock
        self._counters = counters
        self._notices = notices
        self._stopping = stopping
        self._gathering = Gathering(link, ledger)
        self.room = Room(MAX_SUBMITTING_BYTES)
        # When each deployment was made, to notice one made anew.
        self._made: dict[str, int] = {}

    async def submit(
        self, submitted: SubmitTaskRequest, call: TaskCall
    ) -> tuple[TaskEnvelope, bool]:
        """Stores one task, refusing it while too much is on its way.

        Returns:
            The task as it is stored, and whether it is new: else there was one of its key before.

        Raises:
            OutcomeError: if it is refused.
        """
        size = submitted.ByteSize() + OWN_BYTES
        if not self.room.fits(size):
            raise OutcomeError(
                OUTCOME_RESOURCE_EXHAUSTED,
                f"this router has tasks of {self.room.used_bytes} bytes on their way to the queue; "
                f"at most {MAX_SUBMITTING_BYTES} are legal. Try again or add a router",
                retry_after_s=0.5,
            )
        await self.room.take(size)
        try:
            return await self.store(submitted, call)
        finally:
            self.room.give(size)

    async def store(
        self, submitted: SubmitTaskRequest, call: TaskCall
    ) -> tuple[TaskEnvelope, bool]:
        """Stores one task for which there is room; otherwise as `submit`."""
        with self._counted(submitted.request.model_name):
            deployment = await self._deployment(submitted.request.model_name)
            envelope = self._envelope(submitted, deployment, call)
            return envelope, await self._traced(envelope, call)

    async def store_again(self, dead: DeadTask, call: TaskCall) -> tuple[TaskEnvelope, bool]:
        """Stores a failed task as a new one, unless that was done; otherwise as `submit`."""
        submitted = SubmitTaskRequest(task=dead.envelope.task)
        submitted.request.ParseFromString(dead.envelope.body)
        # It names the failed one.
        submitted.task.ClearField("idempotency_key")
        with self._counted(dead.envelope.deployment):
            deployment = await self._deployment(dead.envelope.deployment)
            envelope = self._envelope(submitted, deployment, call, dead.envelope.task)
            return envelope, await self._traced(envelope, call)

    @contextmanager
    def _counted(self, deployment_id: str) -> Iterator[None]:
        """Counts how a submission ends; one that its caller drops is not counted."""

        def count(outcome: Outcome) -> None:
            known = self._directory.get(deployment_id) is not None
            label = deployment_id if known else ""
            self._counters.submitted_tasks[label, LABELS[outcome]] += 1

        try:
            yield
        except OutcomeError as error:
            count(error.outcome)
            raise
        count(OUTCOME_OK)

    def _envelope(
        self,
        submitted: SubmitTaskRequest,
        deployment: Deployment,
        call: TaskCall,
        retry_of: Task | None = None,
    ) -> TaskEnvelope:
        return envelope_of(
            submitted,
            deployment,
            call.tenant,
            self._server_clock.now_s(),
            call.caller.traceparent,
            call.caller.tracestate,
            retry_of,
        )

    async def _deployment(self, deployment_id: str) -> Deployment:
        if self._stopping.is_set():
            raise OutcomeError(
                OUTCOME_UNAVAILABLE,
                "this router is shutting down; submit to another, or again in a second",
                retry_after_s=1.0,
            )
        deployment = await self._directory.find(deployment_id)
        if deployment is None:
            raise self._unknown(deployment_id)
        made = deployment.create_time.ToNanoseconds()
        if self._made.get(deployment_id) != made:
            # A deployment of the name that was deleted took the consumers along.
            self._ledger.forget_consumers(deployment_id)
            if len(self._made) >= MAX_KNOWN:
                # Known again with the next task of each, for one question to the server.
                self._made.clear()
            self._made[deployment_id] = made
        return deployment

    def _unknown(self, deployment_id: str) -> OutcomeError:
        if not names.is_id(deployment_id):
            return OutcomeError(
                OUTCOME_INVALID_ARGUMENT,
                f"request.model_name is {names.quoted(deployment_id)}; it names the deployment: "
                "1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'",
            )
        if not self._directory.known:
            return OutcomeError(
                OUTCOME_UNAVAILABLE,
                "the router does not know the deployments yet: it has not reached NATS",
                retry_after_s=1.0,
            )
        known = ", ".join(self._directory.ids()[:5]) or "none"
        return OutcomeError(
            OUTCOME_NOT_FOUND,
            f"Task for unknown model: {names.quoted(deployment_id)} is not found; there is no "
            f"deployment of that name (deployed: {known})",
        )

    async def _traced(self, envelope: TaskEnvelope, call: TaskCall) -> bool:
        call.caller.deployment = envelope.deployment
        if call.many or not telemetry.records(envelope.traceparent):
            # Of a million tasks, each attempt links to the call that brought them.
            is_new = await self._once(envelope)
            call.stored_count += is_new
            return is_new
        span = telemetry.span(
            "publish task",
            "PRODUCER",
            {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate},
            attributes=_publish_attributes(envelope),
        )
        assert span is not None
        envelope.traceparent, envelope.tracestate = span.traceparent, span.tracestate
        try:
            is_new = await self._once(envelope)
            call.stored_count += is_new
        except OutcomeError as error:
            span.fail(STATUS[error.outcome].name, error.message)
            raise
        except asyncio.CancelledError:
            span.fail("CANCELLED")
            raise
        finally:
            span.end()
        return is_new

    async def _once(self, envelope: TaskEnvelope) -> bool:
        """Stores a task unless its key has one; returns whether it is new."""
        # Of two who look at the same time and find nothing, JetStream stores one and tells the
        # other that it is the second, who looks again: they have the same message id.
        if is_known_for_life(envelope.task) and await self._is_known(envelope):
            return False
        try:
            is_new = await self._store_once(envelope)
        except NotStoredError as error:
            raise _refused(error) from error
        if is_new:
            self._notices.stored(envelope.deployment, envelope.task.priority)
        return is_new

    async def _store_once(self, envelope: TaskEnvelope) -> bool:
        message_id = ""
        for turn in range(1, MAX_TURNS + 1):
            stored = await self._publish(envelope, message_id)
            if not (stored.duplicate and is_keyed(envelope.task)):
                return True
            if await self._is_known(envelope):
                return False
            # Stored and purged within JetStream's window, at whose end only it would be taken.
            message_id = f"{envelope.deployment}.{envelope.task_id}.{turn}"
        raise OutcomeError(
            OUTCOME_UNAVAILABLE,
            f"{envelope.task.name} was stored and purged {MAX_TURNS} times within "
            f"{streams.DUPLICATE_WINDOW_S:g} s; try again later",
            retry_after_s=streams.DUPLICATE_WINDOW_S,
        )

    async def _is_known(self, envelope: TaskEnvelope) -> bool:
        """Whether a task of this id waits or has ended, looked at in the order of its life.

        Raises:
            AlreadyThereError: if it was submitted under the same key with another content.
        """
        ids = (envelope.deployment, envelope.task_id)
        task = envelope.task
        message = await self._repeated(lambda: self._ledger.queued(*ids), task.name)
        if message is not None:
            first = TaskEnvelope.FromString(message.data).task
        else:
            ended = await self._repeated(lambda: self._ledger.ended(*ids, False), task.name)
            if ended is None:
                return False
            first = ended
        if task.idempotency_key and first.content_digest != task.content_digest:
            raise AlreadyThereError(
                "task.idempotency_key was used with another request or other options, for "
                f"{task.name}: choose another key, or submit the same"
            )
        return True

    async def _publish(self, envelope: TaskEnvelope, message_id: str) -> Stored:
        if message_id:
            return await self._repeated(
                lambda: self._ledger.enqueue(envelope, message_id), envelope.task.name
            )
        return await self._repeated(lambda: self._gathering.enqueue(envelope), envelope.task.name)

    async def _repeated(self, work: Callable[[], Awaitable[T]], task_name: str) -> T:
        """Does what may safely be done twice, again if it is unknown whether it was done.

        Raises:
            NotStoredError: if the server refuses it.
            OutcomeError: if it is still unknown after REPEAT_FOR_S.
        """
        until_s: float | None = None
        for pause_s in (*REPEAT_AFTER_S, None):
            try:
                return await work()
            except nats.errors.MaxPayloadError as error:
                raise OutcomeError(
                    OUTCOME_INVALID_ARGUMENT,
                    "the task with its options is larger than the queue takes "
                    "(nats-server's max_payload); send fewer elements in a request",
                ) from error
            except (nats.errors.Error, TimeoutError) as error:
                now_s = asyncio.get_running_loop().time()
                until_s = until_s or now_s + REPEAT_FOR_S
                if pause_s is None or now_s + pause_s > until_s or self._stopping.is_set():
                    log.warning("task.not_stored", task=task_name, error=_reason(error))
                    break
            await asyncio.sleep(pause_s)
        raise OutcomeError(
            OUTCOME_UNAVAILABLE,
            "the queue (NATS) cannot be reached, and the task may have been stored or not: submit "
            "it again with the same idempotency_key, or batch and batch_index: it is stored once",
            retry_after_s=1.0,
        )


def _publish_attributes(envelope: TaskEnvelope) -> dict[str, telemetry.Value]:
    task = envelope.task
    attributes: dict[str, telemetry.Value] = {
        words.MESSAGING_SYSTEM: words.NATS,
        words.OPERATION_NAME: "publish",
        words.OPERATION_TYPE: "send",
        words.DESTINATION: subjects.lane(envelope.deployment, task.priority),
        words.DESTINATION_TEMPLATE: "forebay.task.{deployment}.{priority}.>",
        words.MESSAGE_ID: envelope.task_id,
        words.BODY_SIZE: len(envelope.body),
        words.DEPLOYMENT: envelope.deployment,
        words.TASK: envelope.task_id,
    }
    if task.batch:
        attributes[words.BATCH] = task.batch
    return attributes


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refused(error: NotStoredError) -> OutcomeError:
    if isinstance(error, StreamFullError):
        return OutcomeError(
            OUTCOME_RESOURCE_EXHAUSTED,
            f"the queue of tasks is full ({error}): submit again when tasks have ended, add "
            f"replicas, or raise max_bytes of the stream {streams.TASKS}",
            retry_after_s=2.0,
        )
    return OutcomeError(
        OUTCOME_UNAVAILABLE,
        f"the queue (NATS) has refused the task: {error}",
        retry_after_s=1.0,
    )
