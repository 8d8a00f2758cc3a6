"""The calls of a router that wait for something to happen: bounded, and ended when it stops."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from forebay.v1.envelope_pb2 import OUTCOME_RESOURCE_EXHAUSTED, OUTCOME_UNAVAILABLE
from services.wire.outcomes import OutcomeError

MAX_STREAMS = 1000
MAX_STREAMS_OF_TENANT = 900
"""So that none can keep all others out."""


class OpenStreams:
    """SubmitTasks, WaitTask and WatchTasks calls under way."""

    def __init__(self, stopping: asyncio.Event) -> None:
        """None yet.

        Args:
            stopping: set when the router stops.
        """
        self._stopping = stopping
        self._changed: set[asyncio.Event] = set()
        # Bounded by the calls.
        self._of_tenant: Counter[str] = Counter()

    @property
    def is_stopping(self) -> bool:
        """Whether the router stops."""
        return self._stopping.is_set()

    @contextmanager
    def one(self, changed: asyncio.Event, tenant: str) -> Iterator[None]:
        """Counts a call in and out.

        Args:
            changed: set when the router stops.
            tenant: whom it speaks for.

        Raises:
            OutcomeError: RESOURCE_EXHAUSTED if there are too many, UNAVAILABLE if it stops.
        """
        self.check()
        own_count = self._of_tenant[tenant]
        if len(self._changed) >= MAX_STREAMS or own_count >= MAX_STREAMS_OF_TENANT:
            raise OutcomeError(
                OUTCOME_RESOURCE_EXHAUSTED,
                f"{own_count} calls of SubmitTasks, WaitTask and WatchTasks of this tenant are "
                f"open on this router, which holds {MAX_STREAMS_OF_TENANT} of one and "
                f"{MAX_STREAMS} of all. Wait for the tasks of a batch with one WatchTasks call, "
                "close calls, or add a router",
                retry_after_s=2.0,
            )
        self._changed.add(changed)
        self._of_tenant[tenant] += 1
        try:
            yield
        finally:
            self._changed.discard(changed)
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]

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
