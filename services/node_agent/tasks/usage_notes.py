"""Writes down what this node's replicas did for whom, every few seconds and at the end."""

import asyncio
import secrets
from collections import deque

import nats.errors
import structlog

from forebay.v1.task_record_pb2 import UsageNote
from services.node_agent.tasks.usage import MAX_KEYS, UsageSums
from services.wire.stored_publisher import NotStoredError
from services.wire.tasks import subjects
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()

INTERVAL_S = 10.0
MAX_UNWRITTEN = 10 * MAX_KEYS


class UsageNotes:
    """The notes of one node's replicas."""

    def __init__(self, ledger: TaskLedger) -> None:
        """Writes through a ledger."""
        self._ledger = ledger
        self._sums = UsageSums()
        # With the id of each, so that one whose fate is unknown is not counted twice.
        self._unwritten: deque[tuple[str, UsageNote]] = deque(maxlen=MAX_UNWRITTEN)
        self._early = asyncio.Event()

    def add(
        self, deployment: str, tenant: str, batch: str, busy_s: float, slots: int, gpus: float
    ) -> None:
        """Adds an attempt that has ended; see UsageSums."""
        self._sums.add(deployment, tenant, batch, busy_s, slots, gpus)
        if self._sums.full:
            self._take()
            self._early.set()

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._early.wait()
            except TimeoutError:
                pass
            self._early.clear()
            await self.write()

    async def write(self) -> None:
        """Writes what there is; what cannot be written now stays for the next time."""
        self._take()
        while self._unwritten:
            note_id, note = self._unwritten[0]
            try:
                await self._ledger.publisher.publish(
                    subjects.usage_note(note.deployment), note.SerializeToString(), note_id
                )
            except (nats.errors.Error, NotStoredError) as error:
                log.warning(
                    "usage.not_written",
                    reason=str(error) or type(error).__name__,
                    notes=len(self._unwritten),
                )
                return
            if self._unwritten and self._unwritten[0][0] == note_id:
                self._unwritten.popleft()

    def _take(self) -> None:
        self._unwritten.extend((secrets.token_hex(16), note) for note in self._sums.take())
