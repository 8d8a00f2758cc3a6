"""Tasks of a map on their way into the mesh: one stream, sent again over restarts of routers."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from forebay.errors import DeploymentNotFoundError, ForebayError, from_status
from forebay.task_client.calls import TaskCalls
from forebay.task_client.groups import Group
from forebay.task_client.patience import Patience
from forebay.task_client.reconnecting import Reconnecting
from forebay.task_client.slots import Slots
from forebay.v1.envelope_pb2 import (
    OUTCOME_NOT_FOUND,
    OUTCOME_OK,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
)
from forebay.v1.task_pb2 import SubmitTasksRequest, SubmitTasksResponse
from services.wire.outcomes import STATUS

MAX_TASKS = 250
MAX_BYTES = 4 * 1024 * 1024
"""Of one message; a router takes 1000 tasks and 8 MiB."""

_PASSING = frozenset({OUTCOME_RESOURCE_EXHAUSTED, OUTCOME_UNAVAILABLE})


class Submitter:
    """Stores tasks; keeps each until the mesh has said that it is stored.

    What was sent and not answered when a router goes is sent again. The position in the batch makes
    that safe: it is the same task.
    """

    def __init__(
        self,
        calls: TaskCalls,
        slots: Slots,
        patience_s: float,
        refused: Callable[[Group, ForebayError], None],
    ) -> None:
        """Opens nothing yet.

        Args:
            calls: to the router.
            slots: told when inputs need no more memory.
            patience_s: how long to go on with a mesh that is away or a task that there is no room
                for.
            refused: told of a task that is not stored, and why.
        """
        self._calls = calls
        self._slots = slots
        self._patience_s = patience_s
        self._refused = refused
        self._pending: deque[Group] = deque()
        self._added = asyncio.Event()
        self._full_pauses = Patience()
        self._not_before_s = 0.0

    def add(self, group: Group) -> None:
        """Stores a task soon."""
        self._pending.append(group)
        self._added.set()

    def drop(self, group: Group) -> None:
        """Forgets the inputs of a task that is stored, or need not be."""
        if group.submission is not None:
            group.submission = None
            self._slots.refund(group.size_bytes)

    async def run(self) -> None:
        """Stores tasks until cancelled.

        Raises:
            ForebayError: if the mesh has been away for too long, or there is no such deployment.
        """
        link = Reconnecting(self._calls, self._patience_s, DeploymentNotFoundError)
        while True:
            await self._added.wait()
            error: grpc.RpcError | None = None
            sent: dict[int, Group] = {}
            link.opened()
            stream = self._calls.stub.SubmitTasks(metadata=self._calls.metadata)
            try:
                async with asyncio.TaskGroup() as both:
                    writing = both.create_task(self._write(stream, sent))
                    await self._read(stream, sent, link)
                    writing.cancel()
            except* grpc.RpcError as failed:
                error = _first(failed)
            finally:
                stream.cancel()
            self._pending.extendleft(reversed(list(sent.values())))
            if self._pending:
                self._added.set()
            await link.failed(error)

    async def _write(self, stream: Any, sent: dict[int, Group]) -> None:
        index = 0
        while True:
            await self._added.wait()
            pause_s = self._not_before_s - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            message = SubmitTasksRequest()
            size_bytes = 0
            while self._pending and len(message.tasks) < MAX_TASKS:
                group = self._pending[0]
                if message.tasks and size_bytes + group.size_bytes > MAX_BYTES:
                    break
                self._pending.popleft()
                if group.submission is None:
                    continue
                message.tasks.append(group.submission)
                size_bytes += group.size_bytes
                sent[index] = group
                index += 1
            if not self._pending:
                self._added.clear()
            if message.tasks:
                try:
                    await stream.write(message)
                except asyncio.InvalidStateError:
                    # The stream has ended; its reader says how.
                    return

    async def _read(self, stream: Any, sent: dict[int, Group], link: Reconnecting) -> None:
        async for answer in stream:
            link.succeeded()
            for submitted in answer.submitted:
                group = sent.pop(submitted.index, None)
                if group is not None:
                    self._answered(group, submitted)

    def _answered(self, group: Group, submitted: SubmitTasksResponse.Submitted) -> None:
        if submitted.outcome == OUTCOME_OK:
            self._full_pauses.succeeded()
            self.drop(group)
            return
        now_s = time.monotonic()
        if submitted.outcome in _PASSING:
            if group.refused_since_s is None:
                group.refused_since_s = now_s
            if now_s - group.refused_since_s <= self._patience_s:
                if now_s >= self._not_before_s:
                    # One pause for all that were refused together.
                    self._not_before_s = now_s + self._full_pauses.pause_s(random.random())  # noqa: S311
                self._pending.append(group)
                self._added.set()
                return
        self.drop(group)
        if submitted.outcome == OUTCOME_NOT_FOUND:
            # No item is to blame, and none after it can go.
            raise from_status(grpc.StatusCode.NOT_FOUND, submitted.message)
        status = STATUS.get(submitted.outcome, grpc.StatusCode.UNKNOWN)
        self._refused(group, from_status(status, submitted.message))


def _first(failed: BaseExceptionGroup[Any]) -> grpc.RpcError:
    inner = failed.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
