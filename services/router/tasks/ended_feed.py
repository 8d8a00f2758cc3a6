"""Ended tasks of a batch in the order in which they ended, from the stream, without end.

An ephemeral JetStream consumer is asked for messages as fast as they are taken: what the server may
send before it is asked again is the bound of what waits here. It acknowledges nothing; its count of
deliveries shows a gap. After a gap, a lost connection or a silence there is a new consumer, from
the last position on.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats.errors
import structlog
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from services.wire.nats_link import NatsLink
from services.wire.tasks import streams, subjects

log = structlog.get_logger()

ASK_COUNT = 512
ASK_BYTES = 2 << 20
"""At most so much waits in one call; a task with the largest inline result fits six times."""

ASK_FOR_S = 5.0
SILENCE_S = 7.0
"""A question is answered within ASK_FOR_S, if only with the word that there is nothing."""

LEFT_ALONE_S = 30.0
RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class EndedMessage:
    """A word that a task has ended.

    Attributes:
        position: its place in the stream.
        data: a serialised Task.
    """

    position: int
    data: bytes


class EndedFeed:
    """One reader of the ended tasks of a batch.

    Attributes:
        position: place in the stream of the last message that was taken.
        caught_up: whether all that was there when the feed began was taken.
    """

    def __init__(self, link: NatsLink, deployment: str, batch: str, after_position: int) -> None:
        """Prepares a feed; `run` it while it is read.

        Args:
            link: to NATS.
            deployment: id of the deployment.
            batch: the batch.
            after_position: where to go on; 0 begins with the first.
        """
        self.position = after_position
        self.caught_up = False
        self._link = link
        self._filter = subjects.ended(deployment, "*", batch)
        self._name = ""
        self._inbox = link.client.new_inbox()
        self._consumers = 0
        # Bounded by what was asked for.
        self._got: deque[EndedMessage] = deque()
        self._owed_count = 0
        self._deliveries = 0
        self._last_heard_s = 0.0
        self._arrived = asyncio.Event()
        self._broken = ""
        self._old_end: int | None = None
        self._connections = 0

    @asynccontextmanager
    async def open(self, arrived: asyncio.Event) -> AsyncIterator[None]:
        """Has the consumer, and takes it away at the end.

        Args:
            arrived: set when there may be something to take.

        Raises:
            nats.errors.Error: if the server cannot be reached.
        """
        self._arrived = arrived
        subscription = await self._link.client.subscribe_direct(
            f"{self._inbox}.*", self._on_message
        )
        try:
            await self._begin()
            yield
        finally:
            try:
                await self._link.client.unsubscribe_direct(subscription)
                await self._remove()
            except (nats.errors.Error, TimeoutError) as error:
                # The server forgets it by itself after LEFT_ALONE_S.
                log.debug("ended_feed.not_removed", error=str(error))

    def take(self, max_count: int, max_bytes: int) -> list[EndedMessage]:
        """What has come, at most so much and in any case one; empty if nothing has."""
        taken: list[EndedMessage] = []
        size = 0
        while self._got and len(taken) < max_count:
            size += len(self._got[0].data)
            if taken and size > max_bytes:
                break
            taken.append(self._got.popleft())
        if taken:
            self.position = taken[-1].position
        self._note_caught_up()
        return taken

    async def go_on(self) -> None:
        """Asks for more, or begins anew if that is of no use. Call when all that came is taken.

        Raises:
            nats.errors.Error: if the server cannot be reached; call again.
        """
        if not self._link.connected:
            raise nats.errors.ConnectionReconnectingError
        now_s = asyncio.get_running_loop().time()
        if not self._link.same_connection(self._connections):
            self._broken = self._broken or "the connection was lost"
        elif self._owed_count and now_s - self._last_heard_s > SILENCE_S:
            self._broken = self._broken or "nothing was heard"
        if self._broken:
            log.info("ended_feed.begins_anew", reason=self._broken, position=self.position)
            await self._remove_quietly()
            await self._begin()
        elif not self._owed_count:
            self._ask()

    async def _begin(self) -> None:
        self._got.clear()
        self._deliveries = self._owed_count = 0
        # Until there is one.
        self._broken = "there is no consumer"
        self._connections = self._link.connections
        # A name and an inbox of its own: what an earlier one still sends is told apart.
        self._consumers += 1
        self._name = f"watch_{self._inbox.rpartition('.')[2]}_{self._consumers}"
        info = await self._link.jetstream.add_consumer(
            streams.ENDED,
            ConsumerConfig(
                name=self._name,
                filter_subject=self._filter,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self.position + 1,
                ack_policy=AckPolicy.NONE,
                max_deliver=1,
                mem_storage=True,
                num_replicas=1,
                inactive_threshold=LEFT_ALONE_S,
            ),
        )
        self._broken = ""
        if self._old_end is None:
            self._old_end = await self._last_position(info)
        self._note_caught_up()
        self._ask()

    async def _last_position(self, info: ConsumerInfo) -> int:
        """Place of the last message that is there now; 0 if there is none."""
        if not info.num_pending:
            return 0
        stream = await self._link.jetstream.stream_info(streams.ENDED)
        return int(stream.state.last_seq)

    def _note_caught_up(self) -> None:
        if self._old_end is not None and not self._got and self.position >= self._old_end:
            self.caught_up = True

    def _ask(self) -> None:
        question = {
            "batch": ASK_COUNT,
            "max_bytes": ASK_BYTES,
            "expires": int(ASK_FOR_S * 1e9),
        }
        self._owed_count = ASK_COUNT
        self._last_heard_s = asyncio.get_running_loop().time()
        self._link.client.send(
            f"$JS.API.CONSUMER.MSG.NEXT.{streams.ENDED}.{self._name}",
            json.dumps(question).encode(),
            self._reply,
        )

    @property
    def _reply(self) -> str:
        return f"{self._inbox}.{self._consumers}"

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if subject.startswith(self._inbox.encode()):
            if subject.decode() == self._reply:
                self._heard()
                self._on_status(headers or b"")
            return
        tokens = reply.split(b".")
        # With a domain there are two more in front, and one more behind.
        tokens = tokens[2:9] if len(tokens) == 9 else tokens[4:11]
        _, consumer, _, place, delivery, _, pending = tokens
        if consumer.decode() != self._name:
            return
        self._heard()
        self._deliveries += 1
        if int(delivery) != self._deliveries:
            self._broken = f"delivery {int(delivery)} came instead of {self._deliveries}"
            return
        if self._broken:
            return
        self._owed_count -= 1
        self._got.append(EndedMessage(int(place), data))
        if pending == b"0" and self._old_end is not None:
            # What was there and did not come has been forgotten meanwhile.
            self._old_end = min(self._old_end, int(place))

    def _heard(self) -> None:
        self._last_heard_s = asyncio.get_running_loop().time()
        self._arrived.set()

    def _on_status(self, headers: bytes) -> None:
        status = headers[9:12]
        if status in {b"408", b"404"} or b"Batch Completed" in headers or b"MaxBytes" in headers:
            # The question is used up.
            self._owed_count = 0
            if status in {b"408", b"404"} and not self._got and self._old_end is not None:
                self._old_end = min(self._old_end, self.position)
        else:
            self._broken = headers.decode(errors="replace").strip() or "no consumer"

    async def _remove_quietly(self) -> None:
        try:
            await self._remove()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("ended_feed.not_removed", error=str(error))

    async def _remove(self) -> None:
        if self._name:
            await self._link.jetstream.delete_consumer(streams.ENDED, self._name)
