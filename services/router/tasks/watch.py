"""Follows the tasks of a batch as they end, many in one message."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import nats.errors
import structlog

from forebay.v1.inference_pb2 import InferResponse
from forebay.v1.task_pb2 import Task, WatchTasksRequest, WatchTasksResponse
from services.router.tasks.ended_feed import EndedFeed, EndedMessage
from services.router.tasks.open_streams import OpenStreams
from services.wire.nats_link import NatsLink
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()

GROUP_COUNT = 256
GROUP_BYTES = 1 << 20
"""A message that has reached it takes no more."""

LINGER_S = 0.005
"""Tasks that end so soon after each other go in one message."""

LOOK_AGAIN_S = 2.0
RETRY_S = 0.25


class TaskWatcher:
    """WatchTasks."""

    def __init__(self, link: NatsLink, ledger: TaskLedger, streams: OpenStreams) -> None:
        """Watches nothing yet."""
        self._link = link
        self._ledger = ledger
        self._streams = streams

    async def follow(
        self, request: WatchTasksRequest, deployment: str, tenant: str
    ) -> AsyncGenerator[WatchTasksResponse, None]:
        """Yields the tasks of a batch that have ended, without end unless `until_now` is asked for.

        Args:
            request: checked; its position may be beyond the last.
            deployment: id of its `parent`.
            tenant: whose tasks.

        Raises:
            OutcomeError: if the router has too many such calls or stops.
            nats.errors.Error: if the server cannot be reached at first.
        """
        changed = asyncio.Event()
        with self._streams.one(changed, tenant):
            feed = EndedFeed(self._link, deployment, request.batch, request.after_position)
            async with feed.open(changed):
                said_caught_up = False
                while True:
                    changed.clear()
                    taken = feed.take(GROUP_COUNT, GROUP_BYTES)
                    if taken or feed.caught_up != said_caught_up:
                        said_caught_up = feed.caught_up
                        async for response in self._responses(taken, feed, request, tenant):
                            yield response
                    if request.until_now and said_caught_up:
                        return
                    self._streams.check()
                    if not taken:
                        await self._go_on(feed, changed)

    async def _responses(
        self,
        taken: Sequence[EndedMessage],
        feed: EndedFeed,
        request: WatchTasksRequest,
        tenant: str,
    ) -> AsyncGenerator[WatchTasksResponse, None]:
        response = WatchTasksResponse()
        size = 0
        for message in taken:
            task = Task.FromString(message.data)
            if task.tenant != tenant:
                continue
            size += len(message.data)
            if request.omit_results:
                task.ClearField("result")
            elif task.result_size_bytes and not task.HasField("result"):
                result = await self._large_result(task)
                if result is None:
                    # It is being purged.
                    continue
                size += task.result_size_bytes
                task.result.CopyFrom(result)
            response.tasks.append(task)
            if size > GROUP_BYTES:
                response.position = message.position
                yield response
                response, size = WatchTasksResponse(), 0
        # Also without a task: going on from there saves going through the others' again.
        response.position = feed.position
        response.caught_up = feed.caught_up
        yield response

    async def _large_result(self, task: Task) -> InferResponse | None:
        while True:
            try:
                return await self._ledger.large_result(task)
            except (nats.errors.Error, TimeoutError) as error:
                log.debug("watch.result_not_read", error=str(error) or type(error).__name__)
            self._streams.check()
            await asyncio.sleep(RETRY_S)

    async def _go_on(self, feed: EndedFeed, changed: asyncio.Event) -> None:
        try:
            await feed.go_on()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("watch.not_read", error=str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_S)
            return
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                await changed.wait()
            await asyncio.sleep(LINGER_S)
        except TimeoutError:
            pass
