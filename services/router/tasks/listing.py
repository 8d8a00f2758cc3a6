"""Pages of tasks: those in the queue first, then those that have ended, as the streams have them.

What a call looks at is bounded, so that a filter that fits little answers with a short page and a
token rather than late.
"""

from collections.abc import Sequence

from forebay.v1.task_pb2 import ListTasksResponse, Task
from services.router.tasks.endings import waiting_of
from services.router.tasks.selection import NOT_ENDED, Mark, Selection
from services.router.tasks.views import TaskViews
from services.wire.stream_reader import StoredMessage, StreamReader
from services.wire.tasks import streams
from services.wire.tasks.ledger import TaskLedger

READ_COUNT = 500
MAX_LOOKED_AT = 5000
MAX_LOOKED_AT_BYTES = 32 << 20


class TaskList:
    """ListTasks."""

    def __init__(self, ledger: TaskLedger, views: TaskViews) -> None:
        """Lists what the ledger has."""
        self._reader: StreamReader = ledger.reader
        self._views = views

    async def page(self, selection: Selection, size: int, mark: Mark) -> ListTasksResponse:
        """One page, without results.

        Args:
            selection: which tasks.
            size: at most so many.
            mark: where it begins.

        Raises:
            nats.errors.Error: if the server cannot be reached.
        """
        page = _Page(selection, size)
        if not mark.ended:
            if selection.states & NOT_ENDED:
                after = await self._waiting(page, mark.sequence)
                if after is not None:
                    return page.response(Mark(False, after))
            mark = Mark(True, 1)
        if selection.states - NOT_ENDED:
            after = await self._ended(page, mark.sequence)
            if after is not None:
                return page.response(Mark(True, after))
        return page.response(None)

    async def _waiting(self, page: "_Page", sequence: int) -> int | None:
        """Adds tasks of the queue; returns where to go on there, None at its end."""
        while not page.is_full:
            found = await self._reader.read(
                streams.TASKS, page.selection.waiting_subject, sequence, READ_COUNT
            )
            if not found:
                return None
            waiting = [one for one in map(waiting_of, found) if page.selection.has(one.task)]
            # Those that may not fit are looked at again, at the latest with the next page.
            fitting = waiting[: page.free]
            for task in await self._views.describe(fitting):
                # One that has ended is among those.
                if task.state in NOT_ENDED:
                    page.add(task)
            page.looked_at(found)
            left = waiting[len(fitting) :]
            sequence = left[0].sequence if left else found[-1].sequence + 1
        return sequence

    async def _ended(self, page: "_Page", sequence: int) -> int | None:
        """Likewise of the stream of ended tasks."""
        while not page.is_full:
            found = await self._reader.read(
                streams.ENDED, page.selection.ended_subject, sequence, READ_COUNT
            )
            if not found:
                return None
            page.looked_at(found)
            for message in found:
                if not page.free:
                    return message.sequence
                task = Task.FromString(message.data)
                if page.selection.has(task):
                    task.ClearField("result")
                    page.add(task)
                sequence = message.sequence + 1
        return sequence


class _Page:
    """One page as it fills."""

    def __init__(self, selection: Selection, size: int) -> None:
        self.selection = selection
        self._size = size
        self._tasks: list[Task] = []
        self._looked_at = self._looked_at_bytes = 0

    @property
    def free(self) -> int:
        """How many more tasks it takes."""
        return self._size - len(self._tasks)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be looked at for it."""
        return (
            not self.free
            or self._looked_at >= MAX_LOOKED_AT
            or self._looked_at_bytes >= MAX_LOOKED_AT_BYTES
        )

    def add(self, task: Task) -> None:
        """Adds a task that is in one of the states."""
        if task.state in self.selection.states:
            self._tasks.append(task)

    def looked_at(self, messages: Sequence[StoredMessage]) -> None:
        """Counts what was read for it."""
        self._looked_at += len(messages)
        self._looked_at_bytes += sum(len(message.data) for message in messages)

    def response(self, mark: Mark | None) -> ListTasksResponse:
        """The page, and where the next one begins."""
        return ListTasksResponse(
            tasks=self._tasks, next_page_token="" if mark is None else mark.token()
        )
