"""One task, for asyncio: its state, its result, its end."""

from collections.abc import AsyncIterator

from forebay.inference import InferResult
from forebay.task_client import why_waiting
from forebay.task_client.calls import TaskCalls
from forebay.task_client.status import TaskStatus, has_ended, result_of, status_of
from forebay.v1.task_pb2 import Task


class AsyncTaskHandle:
    """A task that was submitted.

    It can be forgotten and made again from `name` with `client.task(name)`, anywhere.
    """

    def __init__(self, calls: TaskCalls, name: str) -> None:
        """Names a task; nothing is asked of the mesh."""
        self._calls = calls
        self._ended: Task | None = None
        self.name = name
        """Resource name, `deployments/{deployment}/tasks/{task}`."""

    @property
    def id(self) -> str:
        """Last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def deployment(self) -> str:
        """The deployment that runs it."""
        return self.name.split("/")[1]

    async def status(self) -> TaskStatus:
        """The task as it is now.

        Raises:
            TaskNotFoundError: if there is no such task, or no longer.
            UnavailableError: if the mesh cannot be reached for 30 s.
        """
        if self._ended is not None:
            return status_of(self._ended)
        task = await self._calls.get(self.name, omit_result=True)
        return status_of(task)

    async def updates(self, timeout_s: float | None = None) -> AsyncIterator[TaskStatus]:
        """The task at once and whenever it has changed; the last one has ended.

        Raises:
            DeadlineExceededError: if it has not ended within `timeout_s`; None waits for ever.
            TaskNotFoundError: if there is no such task.
        """
        async for task in self._calls.watched(self.name, timeout_s, omit_result=True):
            yield status_of(task)

    async def wait(self, timeout_s: float | None = None) -> TaskStatus:
        """Waits until the task has ended, one way or the other, and returns how.

        Raises:
            DeadlineExceededError: if it has not ended within `timeout_s`; None waits for ever.
            TaskNotFoundError: if there is no such task.
        """
        return status_of(await self._wait(timeout_s))

    async def result(self, timeout_s: float | None = None) -> InferResult:
        """Waits for the task's end, over restarts of the mesh, and returns its result.

        If no replica can run it, the logger `forebay` says why after 10 s.

        Args:
            timeout_s: seconds to wait at most; None waits for ever, also for a mesh that is away.

        Raises:
            DeadlineExceededError: if it has not ended by then; it goes on.
            TaskFailedError: if its attempts are used up, or trying again cannot help.
            TaskCancelledError: if it was cancelled.
            TaskExpiredError: if its time to live passed.
            TaskNotFoundError: if there is no such task, or its result is no longer kept.
        """
        return result_of(await self._wait(timeout_s))

    async def cancel(self) -> TaskStatus:
        """Ends the task if it has not ended; returns how it ended.

        Raises:
            TaskNotFoundError: if there is no such task.
        """
        return status_of(await self._calls.cancel(self.name))

    async def retry(self) -> "AsyncTaskHandle":
        """Submits a task that has failed again, with the same inputs, and returns the new one.

        Raises:
            TaskStateError: if it has not failed, or its inputs are no longer kept.
            TaskNotFoundError: if there is no such task.
        """
        return AsyncTaskHandle(self._calls, (await self._calls.retry(self.name)).name)

    async def _wait(self, timeout_s: float | None) -> Task:
        if self._ended is None:
            async with why_waiting.told(self._calls.channel, self.deployment, self.name):
                async for task in self._calls.watched(self.name, timeout_s, omit_result=False):
                    if has_ended(task):
                        self._ended = task
        assert self._ended is not None, "a watch ends with the task"
        return self._ended

    def __repr__(self) -> str:
        return f"<task {self.name}>"
