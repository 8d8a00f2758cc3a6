"""TaskService's methods, repeated while the mesh is away."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from forebay.errors import (
    DeadlineExceededError,
    DeploymentNotFoundError,
    ForebayError,
    TaskNotFoundError,
    from_rpc_error,
)
from forebay.inference import Call, active_context, tenant_metadata
from forebay.stubs import task_service
from forebay.task_client import why_waiting
from forebay.task_client.patience import Patience
from forebay.task_client.status import has_ended
from forebay.v1.task_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    PurgeTasksRequest,
    RetryTaskRequest,
    SubmitTaskRequest,
    Task,
    WaitTaskRequest,
)
from services.runtime import trace_words as words
from services.wire.names import deployment_id

CALL_TIMEOUT_S = 30.0
"""How long a call may take, with the time it waits for a mesh that is away."""

PAGE_SIZE = 500
_SERVICE = "forebay.v1.TaskService"


def is_away(error: grpc.RpcError) -> bool:
    """Whether a call failed because a router went away: the same call can succeed soon."""
    status = error.code()
    if status is grpc.StatusCode.INTERNAL:
        # A connection that was cut in the middle of an answer, or while we were sending.
        details = error.details() or ""
        return "RST_STREAM" in details or details == "Internal error from Core"
    # Streams of a router that stops end as cancelled; ours, when we cancel them, raise otherwise.
    return status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class TaskCalls:
    """TaskService at one router, for one tenant and one event loop."""

    def __init__(self, channel: grpc.aio.Channel, address: str, tenant: str | None) -> None:
        """Calls through a channel.

        Args:
            channel: to the router.
            address: of the router, for messages.
            tenant: whom the calls speak for; None leaves it to the router.
        """
        self.channel = channel
        self.stub = task_service(channel)
        self.address = address
        self.tenant = tenant

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a call: the tenant, and the caller's active span."""
        return (*active_context().items(), *tenant_metadata(self.tenant))

    def typed(
        self, error: grpc.RpcError, not_found: type[ForebayError] = TaskNotFoundError
    ) -> ForebayError:
        """What a caller gets for a failed call."""
        if error.code() is grpc.StatusCode.INTERNAL:
            # Of the router: what models raise is in tasks.
            return ForebayError(error.details() or "the router failed", status=error.code())
        return from_rpc_error(error, self.address, None, not_found)

    async def submit(self, request: SubmitTaskRequest, timeout_s: float) -> Task:
        """Stores a task. Its idempotency key must be set: the call may be repeated.

        Raises:
            ForebayError: of the kind that says why it is not stored.
        """
        deployment = request.request.model_name
        call = Call(deployment, self.address, self.tenant, f"{_SERVICE}/SubmitTask")
        try:
            answer = await self._repeated(
                self.stub.SubmitTask, request, timeout_s, DeploymentNotFoundError, call.metadata
            )
        except ForebayError as error:
            call.failed_with(error)
            raise
        except BaseException:
            call.end("CANCELLED", status="CANCELLED")
            raise
        call.end(None, {words.TASK: answer.task.name.rpartition("/")[2]})
        stored: Task = answer.task
        return stored

    async def get(self, name: str, omit_result: bool) -> Task:
        """A task as it is now.

        Raises:
            TaskNotFoundError: if there is none of that name.
        """
        request = GetTaskRequest(name=name, omit_result=omit_result)
        task: Task = (await self._repeated(self.stub.GetTask, request)).task
        return task

    async def cancel(self, name: str) -> Task:
        """Ends a task that has not ended; returns it as it ended."""
        request = CancelTaskRequest(name=name)
        task: Task = (await self._repeated(self.stub.CancelTask, request)).task
        return task

    async def retry(self, name: str) -> Task:
        """Submits a failed task again; returns the new one."""
        request = RetryTaskRequest(name=name)
        task: Task = (await self._repeated(self.stub.RetryTask, request)).task
        return task

    async def purge(self, request: PurgeTasksRequest, timeout_s: float) -> int:
        """Forgets tasks; returns how many."""
        answer = await self._repeated(
            self.stub.PurgeTasks, request, timeout_s, DeploymentNotFoundError
        )
        count: int = answer.purged_count
        return count

    async def listed(self, request: ListTasksRequest) -> AsyncIterator[Task]:
        """Every task of a list, page by page."""
        request.page_size = request.page_size or PAGE_SIZE
        while True:
            page = await self._repeated(
                self.stub.ListTasks, request, not_found=DeploymentNotFoundError
            )
            for task in page.tasks:
                yield task
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watched(
        self, name: str, timeout_s: float | None, omit_result: bool
    ) -> AsyncIterator[Task]:
        """A task at once and whenever it has changed, to its end, over restarts of routers.

        Raises:
            DeadlineExceededError: if it has not ended within `timeout_s` seconds.
            TaskNotFoundError: if there is none of that name.
        """
        clock, patience = asyncio.get_running_loop(), Patience()
        end_s = None if timeout_s is None else clock.time() + timeout_s
        request = WaitTaskRequest(name=name, omit_result=omit_result)
        while True:
            left_s = None if end_s is None else max(0.0, end_s - clock.time())
            stream = self.stub.WaitTask(request, timeout=left_s, metadata=self.metadata)
            try:
                async for answer in stream:
                    patience.succeeded()
                    yield answer.task
                    if has_ended(answer.task):
                        return
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and end_s is not None:
                    raise await self._late(name, timeout_s) from None
                if not is_away(error):
                    raise self.typed(error) from None
            finally:
                stream.cancel()
            pause_s = patience.pause_s(random.random())  # noqa: S311
            if end_s is not None and clock.time() + pause_s >= end_s:
                await asyncio.sleep(max(0.0, end_s - clock.time()))
                raise await self._late(name, timeout_s)
            await asyncio.sleep(pause_s)

    async def _late(self, name: str, timeout_s: float | None) -> DeadlineExceededError:
        """What a caller gets whose time is over; it says why if nothing can run the task."""
        deployment = deployment_id(name.partition("/tasks/")[0])
        why = await why_waiting.reason(self.channel, deployment)
        said = f"; no replica of {deployment} is ready: {why}" if why else ""
        return DeadlineExceededError(
            f"{name} has not ended within {timeout_s:g} s; it goes on, and can be waited for again"
            f"{said}",
            status=grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    async def _repeated(
        self,
        method: Any,
        request: Any,
        timeout_s: float = CALL_TIMEOUT_S,
        not_found: type[ForebayError] = TaskNotFoundError,
        metadata: tuple[tuple[str, str], ...] | None = None,
    ) -> Any:
        """Calls a method that may be repeated, until it answers or the time is over."""
        clock, patience = asyncio.get_running_loop(), Patience()
        end_s = clock.time() + timeout_s
        while True:
            left_s = max(0.001, end_s - clock.time())
            try:
                return await method(
                    request,
                    timeout=left_s,
                    metadata=self.metadata if metadata is None else metadata,
                )
            except grpc.RpcError as error:
                pause_s = patience.pause_s(random.random())  # noqa: S311
                if not is_away(error) or clock.time() + pause_s >= end_s:
                    raise self.typed(error, not_found) from None
            await asyncio.sleep(pause_s)
