"""Usage in JetStream: each value is written on what it was based on, or not at all."""

import nats.errors
from nats.js.api import Header

from services.wire import usage
from services.wire.nats_link import NatsLink
from services.wire.stored_publisher import StoredPublisher
from services.wire.stream_reader import MAX_BATCH, StoredMessage, StreamReader


class UsageStore:
    """The stream of usage.

    Every method raises nats.errors.Error if the server cannot be reached or does not answer.
    """

    def __init__(self, link: NatsLink, publisher: StoredPublisher, reader: StreamReader) -> None:
        """Works once the link is connected, and makes sure of the stream then."""
        self._link = link
        self._publisher = publisher
        self._reader = reader
        link.on_connected(self._ensure)

    async def last(self, subject: str) -> StoredMessage | None:
        """What is kept under a subject."""
        return await self._reader.last(usage.USAGE, subject)

    async def read(self, subject: str) -> list[StoredMessage]:
        """All that is kept under subjects with wildcards, in the order it was written."""
        found: list[StoredMessage] = []
        while True:
            after = found[-1].sequence if found else 0
            page = await self._reader.read(usage.USAGE, subject, after + 1, MAX_BATCH)
            if not page:
                return found
            found += page

    async def put(self, subject: str, value: bytes, based_on: int, ttl_s: int | None = None) -> int:
        """Writes a value; returns its sequence.

        Args:
            subject: where.
            value: what.
            based_on: sequence of the value that was read there; 0 if there was none.
            ttl_s: seconds after which it is forgotten; None: never.

        Raises:
            services.wire.stored_publisher.NotStoredError: if another value was written since.
            nats.errors.Error: if no answer came; whether it was written is not known.
        """
        name = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
        headers = f"{name}: {based_on}\r\n".encode()
        if not self._link.connected:
            raise nats.errors.ConnectionReconnectingError
        stored = await self._publisher.publish(subject, value, ttl_s=ttl_s, headers=headers)
        return stored.sequence

    async def _ensure(self) -> None:
        await usage.ensure(self._link.jetstream)
