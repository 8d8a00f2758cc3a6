"""What becomes of a task, written down: stored once, ended once.

That a task has ended is one message on a subject of its own, in a stream that takes one message of
each subject and refuses the next: whoever writes first decides, whatever crashes, comes late or
comes twice. The message in the queue goes only after that.
"""

import asyncio
import json

import nats.errors

from forebay.v1.inference_pb2 import InferResponse
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import (
    CallbackEnvelope,
    DeadTask,
    TaskEnvelope,
    TaskProgress,
)
from services.wire import names
from services.wire.nats_link import NatsLink
from services.wire.stored_publisher import (
    Outgoing,
    Stored,
    StoredPublisher,
    StreamMissingError,
    SubjectTakenError,
)
from services.wire.stream_reader import StoredMessage, StreamReader
from services.wire.tasks import states, streams, subjects

INLINE_RESULT_BYTES = 256 * 1024
"""Results above this are kept beside their task, in a stream of their own."""


class TaskLedger:
    """Tasks in JetStream, for routers, agents and the autoscaler alike.

    Every method raises nats.errors.Error if the server cannot be reached or does not answer, after
    which what was to be written may be written or not: do it again.
    """

    def __init__(self, link: NatsLink) -> None:
        """Works once the link is connected, and makes sure of the streams then."""
        self._link = link
        self._publisher = StoredPublisher(link)
        self._reader = StreamReader(link)
        self._consumers: set[tuple[str, int]] = set()
        self._making_consumer = asyncio.Lock()
        self._not_made_count = 0
        link.on_connected(self._on_connected)

    @property
    def reader(self) -> StreamReader:
        """Reads the streams of tasks."""
        return self._reader

    @property
    def publisher(self) -> StoredPublisher:
        """Publishes to them."""
        return self._publisher

    async def enqueue(self, envelope: TaskEnvelope, message_id: str = "") -> Stored:
        """Stores a task in the queue and says that it waits.

        Args:
            envelope: complete; `task.expire_time` says when it expires.
            message_id: what JetStream tells duplicates by; empty means its deployment and its id.

        Raises:
            services.wire.stored_publisher.NotStoredError: if the queue refuses it.
        """
        await self.ensure_consumer(envelope.deployment, envelope.task.priority)
        message = queue_message(envelope, message_id)
        return await self._publish(message.subject, message.payload, message.message_id)

    async def ensure_consumer(self, deployment: str, priority: int) -> None:
        """Makes sure once per connection of the consumer that a task will wait for."""
        key = (deployment, priority)
        if key in self._consumers:
            return
        not_made_count = self._not_made_count
        # One for all that wait for it: hundreds of tasks may be submitted at once.
        async with self._making_consumer:
            if key in self._consumers:
                return
            if not_made_count != self._not_made_count:
                # Who went before has waited for a server that does not answer: not all in turn.
                raise nats.errors.TimeoutError
            try:
                await streams.ensure_consumer(self._link.jetstream, deployment, priority)
            except (nats.errors.Error, TimeoutError):
                self._not_made_count += 1
                raise
            self._consumers.add(key)

    def forget_consumers(self, deployment: str) -> None:
        """Takes note that a deployment was deleted, and its consumers with it."""
        self._consumers = {key for key in self._consumers if key[0] != deployment}

    async def finish(self, task: Task, result: bytes = b"") -> bool:
        """Writes down that a task has ended, unless it has ended before.

        Args:
            task: as it ended: a terminal state, `end_time`, `outcome`, `error`. `result` unset.
            result: a serialised InferResponse, if it SUCCEEDED.

        Returns:
            Whether this is how it ended. False: it had ended before, and stays as it ended then.

        Raises:
            services.wire.stored_publisher.NotStoredError: if there is no room for it.
        """
        deployment, task_id = task_ids(task.name)
        assert task.state in states.TERMINAL, "only what has ended is written down"
        ttl_s = max(1, int(task.result_ttl.ToSeconds()))
        record = Task()
        record.CopyFrom(task)
        record.result_size_bytes = len(result)
        record.expire_time.FromNanoseconds(task.end_time.ToNanoseconds() + ttl_s * 10**9)
        kept: Stored | None = None
        if len(result) > INLINE_RESULT_BYTES:
            if await self.ended(deployment, task_id, with_result=False) is not None:
                return False
            # Before the task: a task that has a result must not be seen without it.
            kept = await self._publish(
                subjects.result(deployment, task_id), result, ttl_s=min(ttl_s + 60, 2**31)
            )
        elif result:
            record.result.MergeFromString(result)
        try:
            await self._publish(
                subjects.ended(deployment, task_id, task.batch),
                record.SerializeToString(),
                ttl_s=ttl_s,
            )
        except SubjectTakenError:
            if kept is not None:
                await self._delete(streams.RESULTS, kept.sequence)
            return False
        if task.callback_url:
            await self._order_callback(deployment, task_id, record)
        return True

    async def order_callback(self, task: Task) -> None:
        """Makes sure that the call for an ended task is ordered; ordering it twice is one call."""
        deployment, task_id = task_ids(task.name)
        if task.callback_url:
            await self._order_callback(deployment, task_id, task)

    async def ended(self, deployment: str, task_id: str, with_result: bool = True) -> Task | None:
        """A task that has ended; None if it has not, or is forgotten, if only its result is."""
        message = await self._reader.last(streams.ENDED, subjects.ended(deployment, task_id))
        if message is None:
            return None
        task: Task = Task.FromString(message.data)
        if not with_result:
            task.ClearField("result")
        elif task.result_size_bytes and not task.HasField("result"):
            result = await self.large_result(task)
            if result is None:
                # A purge is under way: an empty result would pass for the model's.
                return None
            task.result.CopyFrom(result)
        return task

    async def large_result(self, task: Task) -> InferResponse | None:
        """The result of an ended task that is kept beside it; None if it has gone.

        An attempt that came too late, of a replica that was cut off, may have left another one
        before or after it: it is the first of the size that the task tells.
        """
        subject = subjects.result(*task_ids(task.name))
        sequence = 1
        while True:
            found = await self._reader.read(streams.RESULTS, subject, sequence, count=1)
            if not found:
                return None
            if len(found[0].data) == task.result_size_bytes:
                response: InferResponse = InferResponse.FromString(found[0].data)
                return response
            sequence = found[0].sequence + 1

    async def queued(self, deployment: str, task_id: str) -> StoredMessage | None:
        """The message of a task in the queue, a TaskEnvelope; None if there is none."""
        return await self._reader.last(streams.TASKS, subjects.any_task(deployment, task_id))

    async def progress(self, deployment: str, task_id: str) -> TaskProgress:
        """What is known of a task that was tried; empty if nothing is."""
        message = await self._reader.last(streams.PROGRESS, subjects.progress(deployment, task_id))
        progress: TaskProgress = TaskProgress.FromString(message.data if message else b"")
        return progress

    async def keep_progress(self, deployment: str, task_id: str, progress: TaskProgress) -> None:
        """Writes down what is known of a task that was tried."""
        await self._publish(subjects.progress(deployment, task_id), progress.SerializeToString())

    async def bury(self, dead: DeadTask) -> None:
        """Keeps a failed task, so that it can be looked at and tried again."""
        envelope = dead.envelope
        subject = subjects.dead(envelope.deployment, envelope.task_id)
        try:
            await self._publish(subject, dead.SerializeToString())
        except nats.errors.MaxPayloadError:
            # The attempts' errors came on top of a body of the largest size.
            without = DeadTask()
            without.CopyFrom(dead)
            del without.task.attempts[:]
            await self._publish(subject, without.SerializeToString())

    async def dead(self, deployment: str, task_id: str) -> DeadTask | None:
        """A failed task with what it takes to try it again; None if there is none."""
        message = await self._reader.last(streams.DEAD, subjects.dead(deployment, task_id))
        return None if message is None else DeadTask.FromString(message.data)

    async def remove_queued(self, sequence: int) -> None:
        """Takes a message out of the queue; no error if it has gone."""
        await self._delete(streams.TASKS, sequence)

    async def forget(self, deployment: str, task_id: str) -> None:
        """Forgets a task that has ended: how it ended, its result, its dead letter."""
        for stream, subject in (
            (streams.RESULTS, subjects.result(deployment, task_id)),
            (streams.PROGRESS, subjects.progress(deployment, task_id)),
            (streams.DEAD, subjects.dead(deployment, task_id)),
            (streams.ENDED, subjects.ended(deployment, task_id)),
        ):
            await self._link.jetstream.purge_stream(stream, subject=subject)

    async def forget_ended(self, task: Task) -> None:
        """Likewise, asking only for what a task that ended like this has left."""
        deployment, task_id = task_ids(task.name)
        left = [(streams.ENDED, subjects.ended(deployment, task_id, task.batch))]
        if task.result_size_bytes > INLINE_RESULT_BYTES:
            left.append((streams.RESULTS, subjects.result(deployment, task_id)))
        if task.attempts:
            left.append((streams.PROGRESS, subjects.progress(deployment, task_id)))
        if task.state == states.FAILED:
            left.append((streams.DEAD, subjects.dead(deployment, task_id)))
        # The word that it has ended goes last: what is left can be asked for again until then.
        for stream, subject in reversed(left):
            await self._link.jetstream.purge_stream(stream, subject=subject)

    async def forget_progress(self, deployment: str, task_id: str) -> None:
        """Forgets what was known of a task before it ended."""
        await self._link.jetstream.purge_stream(
            streams.PROGRESS, subject=subjects.progress(deployment, task_id)
        )

    def tell_waiting(self, deployment: str, priority: int) -> None:
        """Says to idle replicas that a task waits; nothing depends on its arrival."""
        self._tell(subjects.waiting(deployment), str(priority).encode())

    def tell_cancelled(self, deployment: str, task_id: str) -> None:
        """Says to the replica that runs a task that it was cancelled."""
        self._tell(subjects.cancel(deployment), task_id.encode())

    def _tell(self, subject: str, payload: bytes) -> None:
        if self._link.client.is_connected:
            self._link.client.send(subject, payload)

    async def _order_callback(self, deployment: str, task_id: str, task: Task) -> None:
        order = CallbackEnvelope(task_id=task_id, deployment=deployment, task=task)
        order.task.ClearField("result")
        # A task that is forgotten may be submitted again by the same name, and end again.
        message_id = f"{deployment}.{task_id}.{task.end_time.ToNanoseconds()}.callback"
        await self._publish(
            subjects.callback(deployment, task_id), order.SerializeToString(), message_id
        )

    async def _publish(
        self, subject: str, payload: bytes, message_id: str = "", ttl_s: int | None = None
    ) -> Stored:
        try:
            return await self._publisher.publish(subject, payload, message_id, ttl_s)
        except StreamMissingError:
            await streams.ensure(self._link.jetstream)
            return await self._publisher.publish(subject, payload, message_id, ttl_s)

    async def _delete(self, stream: str, sequence: int) -> None:
        answer = await self._link.client.request(
            f"$JS.API.STREAM.MSG.DELETE.{stream}",
            json.dumps({"seq": sequence, "no_erase": True}).encode(),
            timeout=5,
        )
        error = json.loads(answer.data).get("error")
        if error and error.get("code") != 404 and error.get("err_code") not in _NO_MESSAGE:
            raise nats.errors.Error(str(error.get("description", error)))

    async def _on_connected(self) -> None:
        await streams.ensure(self._link.jetstream)
        self._consumers.clear()


_NO_MESSAGE = frozenset({10037, 10043, 10057})
"""JetStream's error codes for a message that is not there."""


def queue_message(envelope: TaskEnvelope, message_id: str = "") -> Outgoing:
    """The message that a task waits as; arguments as those of `TaskLedger.enqueue`."""
    task = envelope.task
    subject = subjects.task(
        envelope.deployment,
        task.priority,
        envelope.task_id,
        task.batch,
        task.expire_time.seconds,
    )
    message_id = message_id or f"{envelope.deployment}.{envelope.task_id}"
    return Outgoing(subject, envelope.SerializeToString(), message_id)


def task_name(deployment: str, task_id: str) -> str:
    """Resource name of a task."""
    return f"{names.deployment_name(deployment)}/tasks/{task_id}"


def task_ids(name: str) -> tuple[str, str]:
    """Ids of the deployment and the task of a resource name `deployments/{d}/tasks/{task}`.

    Raises:
        services.wire.names.InvalidNameError: if `name` is not such a name.
    """
    parent, _, task_id = name.partition("/tasks/")
    if not names.is_id(task_id):
        raise names.InvalidNameError(
            f"{names.quoted(name)} is not a task: write deployments/{{deployment}}/tasks/{{task}}"
        )
    return names.deployment_id(parent), task_id
