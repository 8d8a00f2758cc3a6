"""One task, for callers without an event loop."""

from collections.abc import Iterator

from forebay.inference import InferResult
from forebay.task_client.handle import AsyncTaskHandle
from forebay.task_client.portal import Portal
from forebay.task_client.status import TaskStatus


class TaskHandle:
    """A task that was submitted; threads may share it.

    It can be forgotten and made again from `name` with `client.task(name)`, anywhere.
    """

    def __init__(self, portal: Portal, handle: AsyncTaskHandle) -> None:
        """Names a task; nothing is asked of the mesh."""
        self._portal = portal
        self._handle = handle

    @property
    def name(self) -> str:
        """Resource name, `deployments/{deployment}/tasks/{task}`."""
        return self._handle.name

    @property
    def id(self) -> str:
        """Last part of the name."""
        return self._handle.id

    @property
    def deployment(self) -> str:
        """The deployment that runs it."""
        return self._handle.deployment

    @property
    def status(self) -> TaskStatus:
        """The task as it is now; asks the mesh.

        Raises:
            TaskNotFoundError: if there is no such task, or no longer.
            UnavailableError: if the mesh cannot be reached for 30 s.
        """
        return self._portal.call(self._handle.status())

    def updates(self, timeout_s: float | None = None) -> Iterator[TaskStatus]:
        """The task at once and whenever it has changed; the last one has ended.

        Raises:
            DeadlineExceededError: if it has not ended within `timeout_s`; None waits for ever.
            TaskNotFoundError: if there is no such task.
        """
        found = self._handle.updates(timeout_s)

        async def following() -> TaskStatus | None:
            return await anext(found, None)

        while (status := self._portal.call(following())) is not None:
            yield status

    def wait(self, timeout_s: float | None = None) -> TaskStatus:
        """Waits until the task has ended, one way or the other, and returns how.

        Raises:
            DeadlineExceededError: if it has not ended within `timeout_s`; None waits for ever.
            TaskNotFoundError: if there is no such task.
        """
        return self._portal.call(self._handle.wait(timeout_s))

    def result(self, timeout_s: float | None = None) -> InferResult:
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
        return self._portal.call(self._handle.result(timeout_s))

    def cancel(self) -> TaskStatus:
        """Ends the task if it has not ended; returns how it ended.

        Raises:
            TaskNotFoundError: if there is no such task.
        """
        return self._portal.call(self._handle.cancel())

    def retry(self) -> "TaskHandle":
        """Submits a task that has failed again, with the same inputs, and returns the new one.

        Raises:
            TaskStateError: if it has not failed, or its inputs are no longer kept.
            TaskNotFoundError: if there is no such task.
        """
        return TaskHandle(self._portal, self._portal.call(self._handle.retry()))

    def __repr__(self) -> str:
        return f"<task {self.name}>"
