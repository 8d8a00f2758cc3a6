"""Reads what a stream holds, several messages with one question (JetStream's direct get)."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
import nats.js.errors

from services.wire.nats_link import NatsLink
from services.wire.server_clock import parse_time_s

TIMEOUT_S = 5.0
MAX_BATCH = 1000
MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream.

    Attributes:
        sequence: its place in the stream.
        subject: where it was published.
        stored_s: when, in seconds since the epoch on the server's clock.
        data: its payload.
    """

    sequence: int
    subject: str
    stored_s: float
    data: bytes


class StreamReader:
    """Asks the server for messages of streams that allow direct get."""

    def __init__(self, link: NatsLink) -> None:
        """Works once the link is connected."""
        self._link = link
        self._inbox = link.client.new_inbox()
        self._subscribed = False
        self._next = 0
        self._answers: dict[int, asyncio.Queue[tuple[bytes, bytes]]] = {}
        link.on_connected(self._on_connected)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject, which may hold wildcards; None if there is none.

        Raises:
            nats.errors.Error: if the server cannot be asked or does not answer.
        """
        found = await self._ask(stream, {"last_by_subj": subject}, 1)
        if found:
            return found[0]
        return await self._last_of_leader(stream, subject)

    async def last_of_each(
        self, stream: str, subject_list: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> list[StoredMessage]:
        """The last message of each subject that has one, at most MAX_BATCH, by sequence.

        Raises:
            nats.errors.Error: if the server cannot be asked or does not answer.
        """
        if not subject_list:
            return []
        question = {"multi_last": list(subject_list), "batch": MAX_BATCH, "max_bytes": max_bytes}
        return await self._ask(stream, question, None)

    async def read(
        self,
        stream: str,
        subject: str,
        from_sequence: int = 1,
        count: int = 100,
        max_bytes: int = MAX_BYTES,
    ) -> list[StoredMessage]:
        """Messages of a stream in the order they were stored; none at its end.

        Args:
            stream: the stream.
            subject: only those of this subject, which may hold wildcards.
            from_sequence: where to begin.
            count: at most so many, up to MAX_BATCH.
            max_bytes: at most about so much; the first message comes in any case.

        Raises:
            nats.errors.Error: if the server cannot be asked or does not answer.
        """
        question = {
            "seq": max(1, from_sequence),
            "next_by_subj": subject,
            "batch": min(count, MAX_BATCH),
            "max_bytes": max_bytes,
        }
        return await self._ask(stream, question, None)

    async def _last_of_leader(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject as the stream's leader has it, where others answer too.

        Any server that keeps the stream answers a direct get, and one may be some milliseconds
        behind what two others have confirmed: a task that was just submitted is not unknown.
        """
        jetstream = self._link.jetstream
        if jetstream.stream_replicas == 1:
            return None
        try:
            found = await jetstream.get_msg(stream, subject=subject)
        except nats.js.errors.NotFoundError:
            return None
        return StoredMessage(
            sequence=found.seq or 0,
            subject=found.subject or "",
            stored_s=found.time.timestamp() if found.time else 0.0,
            data=found.data or b"",
        )

    async def _ask(
        self, stream: str, question: dict[str, Any], expected: int | None
    ) -> list[StoredMessage]:
        """Asks; `expected` answers are all, or what comes before a status is."""
        self._next += 1
        number = self._next
        # The server sends no more than was asked for.
        answers = self._answers[number] = asyncio.Queue()
        found: list[StoredMessage] = []
        try:
            self._link.client.send(
                f"$JS.API.DIRECT.GET.{stream}",
                json.dumps(question).encode(),
                f"{self._inbox}.{number}",
            )
            async with asyncio.timeout(TIMEOUT_S):
                while expected is None or len(found) < expected:
                    headers, data = await answers.get()
                    message = _message(headers, data)
                    if message is None:
                        break
                    found.append(message)
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        finally:
            del self._answers[number]
        return found

    async def _on_connected(self) -> None:
        if not self._subscribed:
            await self._link.client.subscribe_direct(f"{self._inbox}.*", self._on_answer)
            self._subscribed = True

    def _on_answer(self, subject: bytes, _: bytes, data: bytes, headers: bytes | None) -> None:
        answers = self._answers.get(int(subject[subject.rindex(b".") + 1 :]))
        if answers is not None:
            answers.put_nowait((headers or b"", data))


def _message(headers: bytes, data: bytes) -> StoredMessage | None:
    """The message in an answer; None if it is a status, such as `NATS/1.0 204 EOB`.

    Raises:
        nats.errors.NoRespondersError: if there is no such stream.
        nats.errors.Error: if the server refuses the question.
    """
    status = headers[9:12]
    if status in {b"204", b"404"}:
        return None
    if status == b"503":
        raise nats.errors.NoRespondersError
    if status.strip().isdigit():
        raise nats.errors.Error(headers.decode(errors="replace").strip())
    fields = dict(line.split(": ", 1) for line in headers.decode().split("\r\n") if ": " in line)
    return StoredMessage(
        sequence=int(fields["Nats-Sequence"]),
        subject=fields["Nats-Subject"],
        stored_s=parse_time_s(fields["Nats-Time-Stamp"]),
        data=data,
    )
