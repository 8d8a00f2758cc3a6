"""A local copy of a key-value bucket: read at once, watched, and read anew when in doubt.

nats-py's watch can end silently when nats-server restarts. So the bucket is read anew on each
reconnection, and its last sequence number is compared with what the watch has seen every
POLL_INTERVAL_S: a change that the watch missed is noticed then at the latest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog
from nats.js import JetStreamContext, api
from nats.js.kv import KV_DEL, KV_OP, KeyValue

from services.wire.nats_link import NatsLink

log = structlog.get_logger()

POLL_INTERVAL_S = 2.0
_RETRY_S = 0.25

CONCURRENT_READS = 32
LOOK_TIMEOUT_S = 1.0
ABANDONED_WATCH_S = 10.0
"""How long the consumer of a watch outlives it; nats-py's 5 min would pile them up."""

# As nats-py's KeyValue reads them.
_WRONG_LAST_SEQUENCE = (10071, 10164)


@dataclass(frozen=True, slots=True)
class KvEntry:
    """A value and its revision, which compare-and-set needs."""

    value: bytes
    revision: int


class KvMirror:
    """The current entries of one bucket.

    Attributes:
        known: whether the bucket has been read since the process began.
    """

    def __init__(
        self, link: NatsLink, open_bucket: Callable[[JetStreamContext], Awaitable[KeyValue]]
    ) -> None:
        """An empty mirror that fills when the link connects.

        Args:
            link: reads the bucket before it counts as connected.
            open_bucket: one of the buckets in `streams`.
        """
        self._link = link
        self._open_bucket = open_bucket
        self._entries: dict[str, KvEntry] = {}
        # Revisions of deleted keys: what comes late must not bring them back.
        self._deleted: dict[str, int] = {}
        self._bucket: KeyValue | None = None
        self._bucket_name = ""
        self._watcher: KeyValue.KeyWatcher | None = None
        self._last_revision = 0
        self._looks = 0
        self.known = False
        # One write at a time, so that `given` can be relied on.
        self._writing = asyncio.Lock()
        self._listeners: set[asyncio.Event] = set()
        link.on_connected(self.reload)

    @property
    def bucket(self) -> KeyValue:
        """The bucket, to write to.

        Raises:
            nats.errors.Error: before the first connection.
        """
        if self._bucket is None:
            raise nats.errors.ConnectionClosedError
        return self._bucket

    @contextmanager
    def changes(self, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An event that is set whenever an entry changes and after each full read.

        Whoever waits for it clears it. It is set to begin with.

        Args:
            event: used in place of a new one, to wait for several things at once.
        """
        event = event or asyncio.Event()
        event.set()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)

    def get(self, key: str) -> KvEntry | None:
        """The entry of a key, or None."""
        return self._entries.get(key)

    def entries(self, prefix: str) -> dict[str, KvEntry]:
        """Entries whose key begins with `prefix`, by the rest of their key."""
        return {
            key.removeprefix(prefix): entry
            for key, entry in self._entries.items()
            if key.startswith(prefix)
        }

    async def put(
        self, key: str, value: bytes, revision: int, given: tuple[str, int] | None = None
    ) -> KvEntry:
        """Writes a key if it still has the revision that was read; 0 if there must be none.

        Args:
            key: the key.
            value: its new value.
            revision: the one that the change is based on.
            given: another key of this bucket and the revision it must still have; checked against
                the writes of this process only.

        Raises:
            nats.js.errors.KeyWrongLastSequenceError: if someone else has written it since.
            nats.errors.Error: if NATS cannot be reached; whether it was written is unknown.
        """
        async with self._writing:
            if given is not None:
                entry = self._entries.get(given[0])
                if entry is None or entry.revision != given[1]:
                    raise nats.js.errors.KeyWrongLastSequenceError
            last = revision or self._after(key)
            new_revision = await self._link.unless_lost(self.bucket.update(key, value, last=last))
            self._apply(key, value, new_revision)
            return KvEntry(value, new_revision)

    async def delete(self, key: str) -> None:
        """Removes a key if it has not changed since it was last seen here.

        Raises:
            nats.js.errors.KeyWrongLastSequenceError: if it has changed.
            nats.errors.Error: if NATS cannot be reached; whether it was removed is unknown.
        """
        async with self._writing:
            entry = self._entries.get(key)
            if entry is None:
                return
            # KeyValue.delete does not tell the revision, which the next put of the key needs.
            headers = {
                KV_OP: KV_DEL,
                api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(entry.revision),
            }
            subject = f"$KV.{self._bucket_name}.{key}"
            try:
                ack = await self._link.unless_lost(
                    self._link.jetstream.publish(subject, headers=headers)
                )
            except nats.js.errors.APIError as error:
                if error.err_code not in _WRONG_LAST_SEQUENCE:
                    raise
                raise nats.js.errors.KeyWrongLastSequenceError(
                    description=error.description
                ) from error
            self._apply(key, None, ack.seq)

    async def look(self, key: str) -> None:
        """Reads one key that is not here: it may have been written a moment ago.

        Tries for LOOK_TIMEOUT_S, and not at all beyond CONCURRENT_READS at a time.
        """
        if self._bucket is None or self._looks >= CONCURRENT_READS:
            return
        self._looks += 1
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                entry = await self._link.unless_lost(self._bucket.get(key))
        except nats.js.errors.KeyNotFoundError:
            return
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("kv.not_looked", error=str(error) or type(error).__name__)
            return
        finally:
            self._looks -= 1
        # What was written before it has not been seen for that.
        seen = self._last_revision
        self._apply(key, entry.value or b"", entry.revision or 0)
        self._last_revision = seen

    async def reload(self) -> None:
        """Reads the whole bucket anew.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        known_before = self._last_revision
        bucket = await self._open_bucket(self._link.jetstream)
        name = (await bucket.status()).bucket
        # Watched from before it is read, so that nothing is missed in between.
        watcher = await bucket.watchall(inactive_threshold=ABANDONED_WATCH_S)
        try:
            since, entries, deleted = await self._read(bucket, name)
        except (nats.errors.Error, TimeoutError):
            await _stop(watcher)
            raise
        old = self._watcher
        self._bucket, self._bucket_name, self._watcher = bucket, name, watcher
        if since < known_before:
            # Not the bucket it was: its store was lost. Nothing known before counts.
            self._entries, self._deleted = {}, {}
        newer = {key: entry for key, entry in self._entries.items() if entry.revision > since}
        gone = {key: revision for key, revision in self._deleted.items() if revision > since}
        self._entries, self._deleted = entries, deleted
        self._last_revision = since
        # What was written here while all was read may have been read as it was before.
        for key, entry in newer.items():
            self._apply(key, entry.value, entry.revision)
        for key, revision in gone.items():
            self._apply(key, None, revision)
        self.known = True
        self._announce()
        if old is not None:
            await _stop(old)

    async def run(self) -> None:
        """Follows the bucket for ever."""
        while True:
            try:
                await self._follow()
            except (nats.errors.Error, TimeoutError) as error:
                if self._link.client.is_connected:
                    log.warning("kv.watch_failed", error=str(error) or type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    def _announce(self) -> None:
        for event in self._listeners:
            event.set()

    def _after(self, key: str) -> int:
        # To JetStream a deleted key still has a last sequence: that of its deletion.
        return self._deleted.get(key, 0)

    async def _follow(self) -> None:
        watcher = self._watcher
        if watcher is None or not self._link.client.is_connected:
            await asyncio.sleep(_RETRY_S)
            return
        try:
            entry = await watcher.updates(timeout=POLL_INTERVAL_S)
        except nats.errors.TimeoutError:
            await self._reload_if_behind()
            return
        if isinstance(entry, KeyValue.Entry):
            self._apply(entry.key, None if entry.operation else entry.value, entry.revision)

    async def _reload_if_behind(self) -> None:
        if self._bucket is None:
            return
        status = await self._link.unless_lost(self._bucket.status())
        if status.stream_info.state.last_seq != self._last_revision:
            log.debug("kv.reloading", bucket=status.bucket)
            await self._link.unless_lost(self.reload())

    async def _read(
        self, bucket: KeyValue, name: str
    ) -> tuple[int, dict[str, KvEntry], dict[str, int]]:
        """The last revision, the entries and the deletions of the bucket.

        The stream says which keys there are, and each is read by itself. Neither a watch nor
        KeyValue.keys will do: where a key was written at the same time they said too early that
        that was all, in 35 of 500 tries.
        """
        info = await self._link.jetstream.stream_info(f"KV_{name}", subjects_filter=f"$KV.{name}.>")
        keys = iter([subject.removeprefix(f"$KV.{name}.") for subject in info.state.subjects or {}])
        entries: dict[str, KvEntry] = {}
        deleted: dict[str, int] = {}

        async def read_some() -> None:
            for key in keys:
                try:
                    entry = await bucket.get(key)
                    entries[key] = KvEntry(entry.value or b"", entry.revision or 0)
                except nats.js.errors.KeyNotFoundError as error:
                    if error.entry is not None:
                        deleted[key] = error.entry.revision

        # Exceptions of a TaskGroup come in groups, which no caller expects.
        await asyncio.gather(*(read_some() for _ in range(CONCURRENT_READS)))
        return info.state.last_seq, entries, deleted

    def _apply(self, key: str, value: bytes | None, revision: int) -> None:
        self._last_revision = max(self._last_revision, revision)
        entry = self._entries.get(key)
        known = entry.revision if entry else self._deleted.get(key, 0)
        if revision < known:
            return
        if value is None:
            self._entries.pop(key, None)
            self._deleted[key] = revision
        else:
            self._deleted.pop(key, None)
            self._entries[key] = KvEntry(value, revision)
        self._announce()


async def _stop(watcher: KeyValue.KeyWatcher) -> None:
    try:
        await watcher.stop()
    except nats.errors.Error as error:
        log.debug("kv.stop_failed", error=str(error) or type(error).__name__)
