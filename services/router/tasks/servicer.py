"""TaskService: each method checks its request, calls one part and answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from forebay.v1 import task_pb2 as api
from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.task_pb2_grpc import TaskServiceServicer
from services.router.counters import RouterCounters
from services.router.directory import DeploymentDirectory
from services.router.tasks.calls import TaskCall, checked_parent, checked_task_name, open_call
from services.router.tasks.changes import TaskChanges
from services.router.tasks.endings import Endings
from services.router.tasks.lanes import Lanes
from services.router.tasks.listing import TaskList
from services.router.tasks.notices import WaitingNotices
from services.router.tasks.open_streams import OpenStreams
from services.router.tasks.selection import mark_of, page_size_of, selection_of
from services.router.tasks.submit import Submitter
from services.router.tasks.submit_many import ManySubmissions
from services.router.tasks.views import TaskViews
from services.router.tasks.wait import TaskWaiter
from services.router.tasks.watch import TaskWatcher
from services.runtime.clock import Clock
from services.wire.nats_link import NatsLink
from services.wire.outcomes import OutcomeError
from services.wire.server_clock import ServerClock
from services.wire.tasks import states
from services.wire.tasks.ledger import TaskLedger
from services.wire.tasks.submission import check_batch

SAMPLE_CLOCK_S = 5.0


class TaskServicer(TaskServiceServicer):
    """Tasks of all deployments, of the tenant that a call speaks for."""

    def __init__(
        self,
        link: NatsLink,
        directory: DeploymentDirectory,
        counters: RouterCounters,
        clock: Clock,
        stopping: asyncio.Event,
    ) -> None:
        """Puts the parts together; they work once the link is connected.

        Args:
            link: to NATS.
            directory: the deployments.
            counters: counts what is submitted.
            clock: tells the time.
            stopping: set when no more is taken.
        """
        ledger = TaskLedger(link)
        lanes = Lanes(link, clock)
        self._server_clock = ServerClock(link, clock)
        endings = Endings(ledger, self._server_clock)
        notices = WaitingNotices(ledger)
        self._streams = OpenStreams(stopping)
        self._views = TaskViews(ledger, endings, lanes, self._server_clock)
        self._submitter = Submitter(
            link, directory, ledger, self._server_clock, counters, notices, stopping
        )
        self._list = TaskList(ledger, self._views)
        self._waiter = TaskWaiter(link, self._views, self._streams)
        self._watcher = TaskWatcher(link, ledger, self._streams)
        self._changes = TaskChanges(
            ledger, self._views, endings, lanes, self._submitter, self._server_clock
        )

    async def end_streams(self) -> None:
        """Ends the calls that wait for something when the router stops; runs for ever."""
        await self._streams.run()

    async def follow_clock(self) -> None:
        """Keeps knowing what time nats-server has; runs for ever."""
        while True:
            await asyncio.sleep(SAMPLE_CLOCK_S)
            await self._server_clock.sample()

    async def SubmitTask(
        self, request: api.SubmitTaskRequest, context: grpc.aio.ServicerContext
    ) -> api.SubmitTaskResponse:
        """Stores one task."""
        async with open_call(context, "SubmitTask") as call:
            envelope, is_new = await self._submitter.submit(request, call)
            if is_new:
                return api.SubmitTaskResponse(task=envelope.task)
            task = await self._views.get(envelope.deployment, envelope.task_id, call.tenant)
            return api.SubmitTaskResponse(task=task)

    async def SubmitTasks(
        self,
        requests: AsyncIterator[api.SubmitTasksRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[api.SubmitTasksResponse]:
        """Stores tasks as they come."""
        async with open_call(context, "SubmitTasks") as call:
            async with aclosing(self._many(call).run(requests)) as answers:
                async for answer in answers:
                    yield answer

    def _many(self, call: TaskCall) -> ManySubmissions:
        return ManySubmissions(self._submitter, self._streams, call)

    async def GetTask(
        self, request: api.GetTaskRequest, context: grpc.aio.ServicerContext
    ) -> api.GetTaskResponse:
        """Looks a task up."""
        async with open_call(context, "GetTask") as call:
            ids = checked_task_name(request.name)
            task = await self._views.get(*ids, call.tenant, not request.omit_result)
            return api.GetTaskResponse(task=task)

    async def WaitTask(
        self, request: api.WaitTaskRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[api.WaitTaskResponse]:
        """Follows a task until it has ended."""
        async with open_call(context, "WaitTask") as call:
            ids = checked_task_name(request.name)
            async with aclosing(self._waiter.follow(*ids, call.tenant)) as tasks:
                async for task in tasks:
                    yield api.WaitTaskResponse(task=task)

    async def WatchTasks(
        self, request: api.WatchTasksRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[api.WatchTasksResponse]:
        """Follows the tasks of a batch as they end."""
        async with open_call(context, "WatchTasks") as call:
            deployment = checked_parent(request.parent)
            check_batch("batch", request.batch)
            if request.after_position < 0:
                raise OutcomeError(
                    OUTCOME_INVALID_ARGUMENT,
                    f"after_position is {request.after_position}; legal is 0 and above",
                )
            follow = self._watcher.follow(request, deployment, call.tenant)
            async with aclosing(follow) as responses:
                async for response in responses:
                    yield response

    async def ListTasks(
        self, request: api.ListTasksRequest, context: grpc.aio.ServicerContext
    ) -> api.ListTasksResponse:
        """Lists tasks, page by page."""
        async with open_call(context, "ListTasks") as call:
            deployment = checked_parent(request.parent) if request.parent else ""
            selection = selection_of(
                call.tenant,
                deployment,
                request.batch,
                request.states,
                states.NEXT,
                request.labels,
            )
            size = page_size_of(request.page_size)
            return await self._list.page(selection, size, mark_of(request.page_token))

    async def CancelTask(
        self, request: api.CancelTaskRequest, context: grpc.aio.ServicerContext
    ) -> api.CancelTaskResponse:
        """Ends a task."""
        async with open_call(context, "CancelTask") as call:
            ids = checked_task_name(request.name)
            return api.CancelTaskResponse(task=await self._changes.cancel(*ids, call.tenant))

    async def RetryTask(
        self, request: api.RetryTaskRequest, context: grpc.aio.ServicerContext
    ) -> api.RetryTaskResponse:
        """Submits a failed task again."""
        async with open_call(context, "RetryTask") as call:
            ids = checked_task_name(request.name)
            return api.RetryTaskResponse(task=await self._changes.retry(*ids, call))

    async def PurgeTasks(
        self, request: api.PurgeTasksRequest, context: grpc.aio.ServicerContext
    ) -> api.PurgeTasksResponse:
        """Forgets tasks."""
        async with open_call(context, "PurgeTasks") as call:
            selection = selection_of(
                call.tenant,
                checked_parent(request.parent),
                request.batch,
                request.states,
                states.TERMINAL,
            )
            count = await self._changes.purge(selection, request.validate_only)
            return api.PurgeTasksResponse(purged_count=count)
