"""Publishes to JetStream and hears that it is stored: one subscription for all confirmations.

nats-py's own publish makes a task, an inbox token and a header object for each message; at two
thousand a second that is most of a core. Here a publish is one protocol line and one future.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors

from services.wire.nats_link import NatsLink

TIMEOUT_S = 5.0

_FULL = frozenset({10047, 10023, 10167, 10028})
"""JetStream's error codes for storage that is used up."""

_NO_BATCHES = 10174
"""For a stream that takes no messages together."""

_LIMIT = 10077
"""For every limit of a stream, which only the description tells apart."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What JetStream says of a message that it has stored.

    Attributes:
        sequence: its place in the stream.
        duplicate: it was stored before under the same message id, and not again.
    """

    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published together with others.

    Attributes:
        subject: checked by the caller; must hold no white space.
        payload: at most the server's max_payload less the headers.
        message_id: JetStream stores one message of each id within its window for duplicates.
    """

    subject: str
    payload: bytes
    message_id: str


class NotStoredError(Exception):
    """JetStream has refused a message; the text is its reason."""


class StreamFullError(NotStoredError):
    """The stream, or the storage below it, is full."""


class SubjectTakenError(NotStoredError):
    """There is a message with this subject already, and the stream keeps one of each."""


class StreamMissingError(NotStoredError):
    """Nobody listens on the subject: the stream is not there."""


class NotTogetherError(NotStoredError):
    """The server or the stream takes no messages together; they may be stored singly or not."""


class StoredPublisher:
    """Publishes and waits for the word that it is stored."""

    def __init__(self, link: NatsLink) -> None:
        """Works once the link is connected."""
        self._link = link
        self._inbox = link.client.new_inbox()
        self._subscribed = False
        self._next = 0
        # Bounded by who waits: each leaves with its timeout.
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        link.on_connected(self._on_connected)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str = "",
        ttl_s: int | None = None,
        headers: bytes = b"",
    ) -> Stored:
        """Publishes one message.

        Args:
            subject: checked by the caller; must hold no white space.
            payload: at most the server's max_payload less the headers.
            message_id: JetStream stores one message of each id within its window for duplicates.
            ttl_s: whole seconds, at least 1, after which JetStream forgets it.
            headers: others, as `Name: value\\r\\n` for each.

        Raises:
            StreamFullError: if there is no room for it.
            SubjectTakenError: if the stream keeps one message of each subject and has it.
            StreamMissingError: if there is no such stream.
            NotStoredError: if it was refused otherwise.
            nats.errors.Error: if the connection is down, was lost or no word came in time; except
                for OutboundBufferLimitError, it may be stored all the same.
        """
        if message_id:
            headers += f"Nats-Msg-Id: {message_id}\r\n".encode()
        if ttl_s is not None:
            headers += f"Nats-TTL: {max(1, ttl_s)}\r\n".encode()
        said = await self._ask(
            lambda reply: self._link.client.send(subject, payload, reply, headers)
        )
        return Stored(said["seq"], said.get("duplicate", False))

    async def publish_together(self, messages: Sequence[Outgoing]) -> list[Stored]:
        """Publishes messages that are stored all or none, one after the other, with one sync.

        Needs nats-server 2.12 and a stream with allow_atomic (ADR-50 of nats-architecture).

        Args:
            messages: at least one and at most 1000.

        Raises:
            NotTogetherError: if the server or the stream does not take them together.
            NotStoredError: if one is refused, such as a duplicate, and therefore all.
            nats.errors.Error: as `publish`; they may be stored all the same, all of them.
        """
        said = await self._ask(lambda reply: self._send_together(messages, reply))
        if said.get("count") != len(messages):
            raise NotTogetherError("the server does not know messages that are stored together")
        first = said["seq"] - len(messages) + 1
        return [Stored(first + number, duplicate=False) for number in range(len(messages))]

    def _send_together(self, messages: Sequence[Outgoing], reply: str) -> None:
        # At most 64 characters, and never the same again.
        batch = reply.removeprefix("_INBOX.").replace(".", "-")
        for number, message in enumerate(messages, 1):
            is_last = number == len(messages)
            headers = (
                f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
                f"Nats-Msg-Id: {message.message_id}\r\n"
            )
            if is_last:
                headers += "Nats-Batch-Commit: 1\r\n"
            self._link.client.send(
                message.subject, message.payload, reply if is_last else "", headers.encode()
            )

    async def _ask(self, send: Callable[[str], None]) -> dict[str, Any]:
        """What the server says to the reply subject that `send` is called with."""
        self._next += 1
        number = self._next
        confirmed: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = confirmed
        try:
            send(f"{self._inbox}.{number}")
            async with asyncio.timeout(TIMEOUT_S):
                return await confirmed
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        finally:
            del self._waiting[number]

    async def _on_connected(self) -> None:
        if not self._subscribed:
            await self._link.client.subscribe_direct(f"{self._inbox}.*", self._on_confirmed)
            self._subscribed = True
        # Their confirmations were lost with the former connection.
        for confirmed in self._waiting.values():
            if not confirmed.done():
                confirmed.set_exception(nats.errors.ConnectionReconnectingError())

    def _on_confirmed(self, subject: bytes, _: bytes, data: bytes, __: bytes | None) -> None:
        confirmed = self._waiting.get(int(subject[subject.rindex(b".") + 1 :]))
        if confirmed is None or confirmed.done():
            return
        if not data:
            confirmed.set_exception(StreamMissingError("the stream is not there"))
            return
        said = json.loads(data)
        if "error" in said:
            confirmed.set_exception(_refusal(said["error"]))
        else:
            confirmed.set_result(said)


def _refusal(error: dict[str, object]) -> NotStoredError:
    description = str(error.get("description", "no reason given"))
    code = error.get("err_code")
    if code == _LIMIT and "per subject" in description:
        return SubjectTakenError(description)
    if code == _NO_BATCHES:
        return NotTogetherError(description)
    if code == _LIMIT or code in _FULL:
        return StreamFullError(description)
    return NotStoredError(description)
