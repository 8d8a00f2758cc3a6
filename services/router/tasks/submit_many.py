"""Stores many tasks of one call side by side, and says of each what became of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import structlog

from forebay.v1.envelope_pb2 import OUTCOME_INTERNAL, OUTCOME_INVALID_ARGUMENT, OUTCOME_OK
from forebay.v1.task_pb2 import SubmitTaskRequest, SubmitTasksRequest, SubmitTasksResponse
from services.router.servicers import shortened
from services.router.tasks.calls import TaskCall
from services.router.tasks.open_streams import OpenStreams
from services.router.tasks.submit import OWN_BYTES, Submitter
from services.wire.limits import MAX_BODY_BYTES, MAX_NATS_PAYLOAD_BYTES
from services.wire.outcomes import OutcomeError

log = structlog.get_logger()

MAX_TASKS = 1000
MAX_IN_FLIGHT = 512
"""Tasks of one call that were taken and are not answered: two of the largest groups that are synced
to disk together. Fewer leave the disk idle; twice as many were no faster."""

LINGER_S = 0.002
"""While many are under way, answers that come so soon after each other go in one message."""

MANY = 32

Submitted = SubmitTasksResponse.Submitted


class ManySubmissions:
    """One call of SubmitTasks."""

    def __init__(self, submitter: Submitter, streams: OpenStreams, call: TaskCall) -> None:
        """Nothing taken yet."""
        self._submitter = submitter
        self._streams = streams
        self._call = call
        self._index = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: list[Submitted] = []
        self._in_flight = 0
        self._answered = asyncio.Event()
        self._freed = asyncio.Event()
        self._all_read = False

    async def run(
        self, requests: AsyncIterator[SubmitTasksRequest]
    ) -> AsyncGenerator[SubmitTasksResponse, None]:
        """Takes tasks as they come and yields what became of them.

        Raises:
            OutcomeError: INVALID_ARGUMENT if a message is too large; what came before it is stored.
                UNAVAILABLE if the router stops; what was not answered may not be stored.
        """
        with self._streams.one(self._answered, self._call.tenant):
            async with aclosing(self._run(requests)) as responses:
                async for response in responses:
                    yield response

    async def _run(
        self, requests: AsyncIterator[SubmitTasksRequest]
    ) -> AsyncGenerator[SubmitTasksResponse, None]:
        reader = asyncio.create_task(self._read(requests))
        try:
            while not (self._all_read and not self._in_flight):
                await self._answered.wait()
                if self._in_flight - len(self._done) > MANY:
                    await asyncio.sleep(LINGER_S)
                self._answered.clear()
                answers, self._done = self._done, []
                if answers:
                    yield SubmitTasksResponse(submitted=answers)
                    self._in_flight -= len(answers)
                    self._freed.set()
                if self._streams.is_stopping:
                    reader.cancel()
            self._streams.check()
            await reader
        finally:
            unfinished = {reader, *self._tasks}
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[SubmitTasksRequest]) -> None:
        try:
            async for request in requests:
                _check(request)
                for submitted in request.tasks:
                    await self._start(submitted)
        finally:
            self._all_read = True
            self._answered.set()

    async def _start(self, submitted: SubmitTaskRequest) -> None:
        while self._in_flight >= MAX_IN_FLIGHT:
            self._freed.clear()
            await self._freed.wait()
        # Twice: as it came and as it goes out.
        size = 2 * submitted.ByteSize() + OWN_BYTES
        await self._submitter.room.take(size)
        self._in_flight += 1
        task = asyncio.create_task(self._store(self._index, submitted))
        self._tasks.add(task)
        # Not at the end of `_store`, which never begins if it is cancelled at once.
        task.add_done_callback(lambda _: self._submitter.room.give(size))
        task.add_done_callback(self._tasks.discard)
        self._index += 1

    async def _store(self, index: int, submitted: SubmitTaskRequest) -> None:
        try:
            envelope, _ = await self._submitter.store(submitted, self._call)
            answer = Submitted(index=index, name=envelope.task.name, outcome=OUTCOME_OK)
        except OutcomeError as error:
            answer = Submitted(index=index, outcome=error.outcome, message=shortened(error.message))
        except Exception:
            log.exception("task.failed", index=index, trace_id=self._call.caller.trace_id)
            sentence = "the router failed on this task; its log has the reason"
            answer = Submitted(index=index, outcome=OUTCOME_INTERNAL, message=sentence)
        self._done.append(answer)
        self._answered.set()


def _check(request: SubmitTasksRequest) -> None:
    if len(request.tasks) > MAX_TASKS:
        raise OutcomeError(
            OUTCOME_INVALID_ARGUMENT,
            f"a message has {len(request.tasks)} tasks; at most {MAX_TASKS} are legal. "
            "Send them in several messages",
        )
    size = request.ByteSize()
    # One task of the largest body is legal, and has options beside it.
    if size > MAX_NATS_PAYLOAD_BYTES:
        raise OutcomeError(
            OUTCOME_INVALID_ARGUMENT,
            f"a message has {size} bytes; the limit is {MAX_BODY_BYTES} bytes (8 MiB). "
            "Send its tasks in several messages",
        )
