"""Sums the notes of what replicas did for whom, while this autoscaler leads: shell of `notes`.

The notes are read in their order from where the last leader stopped. Sums are written first and
the place in the stream last: after a crash in between, notes are read again that some sums hold
already, and those leave them out.
"""

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass, field

import nats.errors
import structlog
from google.protobuf.message import DecodeError

from forebay.v1.task_record_pb2 import UsageNote
from services.autoscaler.leadership import Leadership, NotLeadingError
from services.autoscaler.usage.accountant import day_and_hour
from services.autoscaler.usage.notes import BatchSum, HourTable, Who, checked
from services.autoscaler.usage.store import UsageStore
from services.wire import usage
from services.wire.nats_link import NatsLink
from services.wire.stored_publisher import NotStoredError
from services.wire.stream_reader import StoredMessage, StreamReader
from services.wire.tasks import streams, subjects

log = structlog.get_logger()

READ_EVERY_S = 2.0
NOTES_AT_ONCE = 500
MAX_TABLES = 256
"""Hours of deployments that are kept in memory; another one is read anew."""

_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Table:
    """An hour of a deployment with the sequence of each sum as it is kept."""

    sums: HourTable
    sequences: dict[Who, int] = field(default_factory=dict)


class BatchSums:
    """What every tenant's batches used."""

    def __init__(
        self, link: NatsLink, store: UsageStore, reader: StreamReader, leadership: Leadership
    ) -> None:
        """Knows nothing before `run`.

        Args:
            link: to NATS.
            store: where sums are kept.
            reader: reads the notes.
            leadership: only the leader sums.
        """
        self._link = link
        self._store = store
        self._reader = reader
        self._leadership = leadership
        self._term = 0
        self._in_step = False
        self._stream = 0
        self._position = 0
        self._position_sequence = 0
        self._tables: OrderedDict[_Key, _Table] = OrderedDict()

    async def run(self) -> None:
        """Sums for ever, while this autoscaler leads."""
        while True:
            await asyncio.sleep(READ_EVERY_S)
            if not self._link.connected or not self._leadership.leading:
                continue
            try:
                await self._read_all()
            except NotLeadingError as error:
                self._in_step = False
                log.info("usage_notes.not_leading", error=str(error))
            except (nats.errors.Error, NotStoredError, TimeoutError) as error:
                self._in_step = False
                log.warning("usage_notes.failed", error=str(error) or type(error).__name__)

    async def _read_all(self) -> None:
        if not self._in_step or self._term != self._leadership.epoch:
            await self._get_in_step()
        while notes := await self._reader.read(
            streams.USAGE_NOTES, subjects.USAGE_NOTES, self._position + 1, NOTES_AT_ONCE
        ):
            await self._apply(notes)

    async def _get_in_step(self) -> None:
        """Learns up to which note all are summed, and forgets what was known of sums."""
        self._term = self._leadership.epoch
        info = await self._link.jetstream.stream_info(streams.USAGE_NOTES)
        self._stream = int(info.created.timestamp()) if info.created is not None else 0
        kept = await self._store.last(usage.POSITION)
        self._position_sequence = kept.sequence if kept is not None else 0
        self._position = _position(kept, self._stream)
        self._tables.clear()
        self._in_step = True

    async def _apply(self, notes: list[StoredMessage]) -> None:
        touched: dict[_Key, _Table] = {}
        for message in notes:
            note = _note(message)
            if note is None:
                log.warning("usage_notes.unreadable", sequence=message.sequence)
                continue
            key = (*day_and_hour(message.stored_s), note.deployment)
            table = touched[key] = touched.get(key) or await self._table(key)
            table.sums.add(note, message.sequence, self._stream)
        last = notes[-1].sequence
        for key, table in touched.items():
            table.sums.read_until(last)
            await self._write(key, table)
        self._leadership.fence(self._term)
        said = json.dumps({"stream": self._stream, "sequence": last}).encode()
        self._position_sequence = await self._store.put(
            usage.POSITION, said, self._position_sequence
        )
        self._position = last

    async def _write(self, key: _Key, table: _Table) -> None:
        for who in sorted(table.sums.changed):
            self._leadership.fence(self._term)
            table.sequences[who] = await self._store.put(
                usage.batch_hour(*key, *who),
                table.sums[who].write(),
                table.sequences.get(who, 0),
                usage.BATCH_AGE_S,
            )
            table.sums.changed.discard(who)

    async def _table(self, key: _Key) -> _Table:
        """An hour of a deployment as it is kept."""
        table = self._tables.get(key)
        if table is None:
            sums: dict[Who, BatchSum] = {}
            sequences: dict[Who, int] = {}
            for message in await self._store.read(usage.batch_hour(*key)):
                who = who_of(message.subject)
                sequences[who] = message.sequence
                try:
                    sums[who] = BatchSum.read(message.data)
                except ValueError as error:
                    log.error("usage.unreadable", subject=message.subject, error=str(error))
            table = self._tables[key] = _Table(HourTable(sums), sequences)
            if len(self._tables) > MAX_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return table


def who_of(subject: str) -> Who:
    """Tenant and batch of a subject of `usage.batch_hour`."""
    tenant, batch = subject.split(".")[-2:]
    return Who(tenant, "" if batch == subjects.NO_BATCH else batch)


def _note(message: StoredMessage) -> UsageNote | None:
    try:
        return checked(UsageNote.FromString(message.data))
    except DecodeError:
        return None


def _position(kept: StoredMessage | None, stream: int) -> int:
    """Up to which note all are summed; 0 if none is, or if it is another stream by now."""
    try:
        said = json.loads(kept.data) if kept is not None else {}
        return int(said["sequence"]) if said["stream"] == stream else 0
    except (ValueError, KeyError, TypeError):
        return 0
