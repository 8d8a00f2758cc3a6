"""The calls of a router that wait for something to happen: bounded, and ended when it stops."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from forebay.v1.envelope_pb2 import OUTCOME_RESOURCE_EXHAUSTED, OUTCOME_UNAVAILABLE
from services.wire.outcomes import OutcomeError

MAX_STREAMS = 1000


class OpenStreams:
    """SubmitTasks, WaitTask and WatchTasks calls under way."""

    def __init__(self, stopping: asyncio.Event, max_streams: int = MAX_STREAMS) -> None:
        """None yet.

        Args:
            stopping: set when the router stops.
            max_streams: calls at once.
        """
        self._stopping = stopping
        self._max_streams = max_streams
        self._changed: set[asyncio.Event] = set()

    @property
    def is_stopping(self) -> bool:
        """Whether the router stops."""
        return self._stopping.is_set()

    @contextmanager
    def one(self, changed: asyncio.Event) -> Iterator[None]:
        """Counts a call in and out.

        Args:
            changed: set when the router stops.

        Raises:
            OutcomeError: RESOURCE_EXHAUSTED if there are too many, UNAVAILABLE if it stops.
        """
        self.check()
        if len(self._changed) >= self._max_streams:
            raise OutcomeError(
                OUTCOME_RESOURCE_EXHAUSTED,
                f"{len(self._changed)} calls of SubmitTasks, WaitTask and WatchTasks are open on "
                "this router, as many as it holds. Wait for the tasks of a batch with one "
                "WatchTasks call, close calls, or add a router",
                retry_after_s=2.0,
            )
        self._changed.add(changed)
        try:
            yield
        finally:
            self._changed.discard(changed)

    def check(self) -> None:
        """Raises OutcomeError, UNAVAILABLE, if the router stops."""
        if self._stopping.is_set():
            raise OutcomeError(
                OUTCOME_UNAVAILABLE,
                "this router is shutting down; call another, or again in a second",
                retry_after_s=0.5,
            )

    async def run(self) -> None:
        """Wakes all calls when the router stops, then waits for ever."""
        await self._stopping.wait()
        for changed in self._changed:
            changed.set()
        await asyncio.Event().wait()
