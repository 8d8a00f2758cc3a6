"""A map under way: inputs go in as tasks of a batch, what they came to comes out.

The memory it takes does not grow with the number of inputs: at most `max_in_flight` items are
between the caller's iterator and the caller. Everything here runs on one event loop; only the
feeder may have a thread.
"""

import asyncio
from collections.abc import AsyncIterable, Iterable
from itertools import islice
from typing import Any, TypeAlias

import grpc

from forebay.errors import DeploymentNotFoundError, ForebayError, TaskNotFoundError
from forebay.inference import InferResult
from forebay.task_client import why_waiting
from forebay.task_client.calls import TaskCalls
from forebay.task_client.feeder import Event, Feeder, Inbox, InputEnded
from forebay.task_client.groups import Assembler, Group, ItemFailed, split
from forebay.task_client.plan import MapPlan
from forebay.task_client.positions import Positions
from forebay.task_client.reconnecting import Reconnecting
from forebay.task_client.slots import Slots
from forebay.task_client.status import has_ended, result_of
from forebay.task_client.submitter import Submitter
from forebay.task_client.turns import Turns
from forebay.v1.task_pb2 import ListTasksRequest, Task, WatchTasksRequest
from services.wire.tasks import states
from services.wire.tasks.submission import keyed_id
from services.wire.tenants import DEFAULT_TENANT

SILENCE_S = 30.0
"""So long after the last result, tasks that should have ended are asked for by name."""

_FETCHED_AT_ONCE = 16


class InputRaised:
    """Stands in the place of the input that the caller's iterator raised instead of giving."""

    def __init__(self, error: Exception) -> None:
        self.error = error


Value: TypeAlias = InferResult | Exception | InputRaised


class MapEngine:
    """Does what a MapPlan says."""

    def __init__(
        self, calls: TaskCalls, plan: MapPlan, inputs: Iterable[Any] | AsyncIterable[Any]
    ) -> None:
        """Does nothing before the first `take`.

        Args:
            calls: to the router.
            plan: what to do.
            inputs: iterated once, in order.
        """
        self._calls = calls
        self._plan = plan
        self._inputs = inputs
        self._slots = Slots(plan.max_in_flight)
        self._submitter = Submitter(calls, self._slots, plan.patience_s, self._deliver_error)
        self._turns: Turns[Value] = Turns(plan.ordered, plan.first)
        self._chunk = max(1, plan.max_in_flight // 8)
        # What is known of tasks by their position in the batch.
        self._open: dict[int, Group] = {}
        self._early: dict[int, Task] = {}
        self._let_go = Positions()
        self._known = Positions()
        self._first_index = self._next_index = plan.first // plan.batch_size
        self._watch_after = 0
        self._fetching: set[int] = set()
        self._fetches: asyncio.Queue[Group] = asyncio.Queue()
        self._input_ended = False
        self._arrivals = 0
        self._handed_out = 0
        self._moved, self._taken, self._finished = (asyncio.Event() for _ in range(3))
        self._main: asyncio.Task[None] | None = None

    async def take(self) -> list[tuple[int, Value]]:
        """The next results with their positions, as soon as there are any; empty at the end.

        What the call before returned counts as handed out from now on, and gives room for more.

        Raises:
            ForebayError: if the map as a whole cannot go on.
        """
        if self._main is None:
            self._main = asyncio.create_task(self._run(), name="forebay-map")
            self._main.add_done_callback(lambda _: self._moved.set())
        self._slots.release(self._handed_out)
        self._handed_out = 0
        while True:
            self._taken.set()
            ready = self._turns.take(self._chunk)
            if ready or self._main.done():
                break
            self._moved.clear()
            await self._moved.wait()
        self._handed_out = len(ready)
        if not ready:
            _raise_first(self._main)
        return ready

    async def close(self) -> None:
        """Stops; what was submitted goes on in the mesh."""
        if self.abandon() and self._main is not None:
            await asyncio.wait([self._main])

    def abandon(self) -> bool:
        """Begins to stop, without waiting; returns whether there is anything to wait for."""
        self._slots.close()
        return self._main is not None and self._main.cancel()

    async def _run(self) -> None:
        plan = self._plan
        try:
            if plan.resumes:
                await self._learn()
            assembler = Assembler(
                plan.deployment,
                plan.task,
                plan.batch_size,
                plan.outputs,
                plan.model_version,
                plan.encode,
            )
            inbox = Inbox()
            feeder = Feeder(self._inputs, assembler, self._slots, inbox, plan.first)
            async with asyncio.TaskGroup() as group:
                works = (
                    feeder.run(),
                    self._admit(inbox),
                    self._submitter.run(),
                    self._watch(),
                    *(self._fetch_all() for _ in range(_FETCHED_AT_ONCE)),
                    self._ask_after_silence(),
                    self._tell_why_it_waits(),
                )
                running = [group.create_task(work) for work in works]
                await self._finished.wait()
                for task in running:
                    task.cancel()
        finally:
            self._slots.close()

    async def _learn(self) -> None:
        """Finds out which tasks of the batch are stored already.

        Those that wait first: what ends in between is then among those that have ended.
        """
        listing = ListTasksRequest(
            parent=self._plan.parent,
            batch=self._plan.batch,
            states=[states.QUEUED, states.RUNNING],
        )
        async for task in self._calls.listed(listing):
            if task.HasField("batch_index"):
                self._known.add(task.batch_index)
        before_first: int | None = None
        link = Reconnecting(self._calls, self._plan.patience_s, DeploymentNotFoundError)
        position = 0
        while True:
            request = self._watch_request(position)
            request.omit_results = request.until_now = True
            link.opened()
            stream = self._calls.stub.WatchTasks(request, metadata=self._calls.metadata)
            error: grpc.RpcError | None = None
            try:
                async for answer in stream:
                    link.succeeded()
                    for task in answer.tasks:
                        if not task.HasField("batch_index"):
                            continue
                        self._known.add(task.batch_index)
                        if task.batch_index >= self._first_index and before_first is None:
                            before_first = position
                    position = max(position, answer.position)
                    if answer.caught_up:
                        break
                self._watch_after = position if before_first is None else before_first
                return
            except grpc.RpcError as failed:
                error = failed
            finally:
                stream.cancel()
            await link.failed(error)

    async def _admit(self, inbox: Inbox) -> None:
        while not self._input_ended:
            for event in await inbox.take():
                self._admit_one(event)
            self._look()

    def _admit_one(self, event: Event) -> None:
        match event:
            case ItemFailed(position, error):
                self._turns.put(position, error)
            case InputEnded(position, error):
                if error is not None:
                    self._turns.put(position, InputRaised(error))
                self._input_ended = True
            case Group():
                self._open[event.index] = event
                self._next_index = event.index + 1
                if event.index in self._early:
                    self._ended(self._early.pop(event.index))
                elif event.index in self._let_go:
                    self._fetches.put_nowait(event)
                elif event.index not in self._known:
                    self._submitter.add(event)
                    return
                self._submitter.drop(event)

    async def _watch(self) -> None:
        link = Reconnecting(self._calls, self._plan.patience_s, DeploymentNotFoundError)
        while True:
            link.opened()
            stream = self._calls.stub.WatchTasks(
                self._watch_request(self._watch_after), metadata=self._calls.metadata
            )
            error: grpc.RpcError | None = None
            try:
                async for answer in stream:
                    link.succeeded()
                    self._arrivals += 1
                    for task in answer.tasks:
                        await self._seen(task)
                    self._watch_after = max(self._watch_after, answer.position)
                    self._look()
            except grpc.RpcError as failed:
                error = failed
            finally:
                stream.cancel()
            await link.failed(error)

    def _watch_request(self, after: int) -> WatchTasksRequest:
        return WatchTasksRequest(
            parent=self._plan.parent, batch=self._plan.batch, after_position=after
        )

    async def _seen(self, task: Task) -> None:
        """Takes a task that has ended; if its input was not read yet, it is kept for a while."""
        if not task.HasField("batch_index") or task.batch_index < self._first_index:
            return
        index = task.batch_index
        while (
            index >= self._next_index
            and len(self._early) >= self._plan.max_in_flight
            and (self._turns.ready_count or self._handed_out)
        ):
            # The caller is what everything waits for, so that waiting holds nothing up.
            self._look()
            self._taken.clear()
            await self._taken.wait()
        if index < self._next_index:
            self._ended(task)
        elif len(self._early) < self._plan.max_in_flight:
            self._early[index] = task
        else:
            self._let_go.add(index)

    def _ended(self, task: Task) -> None:
        group = self._open.pop(task.batch_index, None)
        if group is None:
            return
        self._submitter.drop(group)
        try:
            for position, value in split(group, result_of(task)):
                self._turns.put(position, value)
        except ForebayError as error:
            self._put_error(group, error)

    def _deliver_error(self, group: Group, error: ForebayError) -> None:
        if self._open.pop(group.index, None) is not None:
            self._submitter.drop(group)
            self._put_error(group, error)
            self._look()

    def _put_error(self, group: Group, error: ForebayError) -> None:
        for position in group.positions:
            self._turns.put(position, error)

    def _look(self) -> None:
        """Says to whoever waits that something has changed."""
        if self._input_ended and not self._open:
            self._finished.set()
        self._moved.set()

    async def _fetch_all(self) -> None:
        while True:
            group = await self._fetches.get()
            try:
                await self._fetch(group)
            finally:
                self._fetching.discard(group.index)

    async def _fetch(self, group: Group) -> None:
        """Asks for a task by its name."""
        plan = self._plan
        named = Task(batch=plan.batch, batch_index=group.index)
        task_id = keyed_id(self._calls.tenant or DEFAULT_TENANT, plan.deployment, named)
        try:
            task = await self._calls.get(f"{plan.parent}/tasks/{task_id}", omit_result=False)
        except TaskNotFoundError as error:
            self._deliver_error(group, error)
            return
        if has_ended(task):
            self._ended(task)
            self._look()

    async def _ask_after_silence(self) -> None:
        """Makes sure that nothing is waited for in vain, such as a result that was purged."""
        while True:
            seen = self._arrivals
            await asyncio.sleep(SILENCE_S)
            if self._arrivals != seen:
                continue
            for group in islice(self._open.values(), _FETCHED_AT_ONCE):
                if group.submission is None and group.index not in self._fetching:
                    self._fetching.add(group.index)
                    self._fetches.put_nowait(group)

    async def _tell_why_it_waits(self) -> None:
        plan = self._plan
        what = f"batch {plan.batch}"
        await why_waiting.tell(self._calls.channel, plan.deployment, what, lambda: bool(self._open))


def _raise_first(main: asyncio.Task[None]) -> None:
    """Raises what ended the work, if it was not the work's end."""
    error = None if main.cancelled() else main.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise error
