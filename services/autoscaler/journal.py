"""Scale decisions as they are kept in JetStream: appended, read back, followed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import nats.errors
import nats.js.errors
import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, RawStreamMsg

from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.decision_counts import DecisionCounts
from services.wire import streams, subjects
from services.wire.names import deployment_name
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

MAX_WAITING = 20_000
"""Decisions kept here while NATS is away; beyond that the oldest go, and are counted."""

RETRY_S = 0.5
MAX_GAPS = 2_000
"""Sequence numbers looked at in vain before a page of a listing ends."""

Named = Callable[[str], None]


def _nobody(_name: str) -> None:
    """Nobody is told."""


class Journal:
    """The stream of scale decisions.

    Attributes:
        counts: how often what was decided.
    """

    def __init__(self, link: NatsLink) -> None:
        """Prepares the journal; `run` writes what is appended."""
        self._link = link
        self._waiting: deque[tuple[str, bytes, Named]] = deque()
        self._appended = asyncio.Event()
        self._dropped = 0
        self.counts = DecisionCounts()
        link.on_connected(lambda: streams.ensure_decisions(link.jetstream))

    def append(self, deployment: str, decision: ScaleDecision, named: Named = _nobody) -> None:
        """Has a decision written as soon as NATS takes it; never waits.

        Args:
            deployment: its id.
            decision: the decision.
            named: told the resource name that it was given, or an empty one if it was dropped.
        """
        self.counts.count(deployment, decision)
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()[2]("")
            self._dropped += 1
        self._waiting.append((deployment, decision.SerializeToString(), named))
        self._appended.set()

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._appended.wait()
            self._appended.clear()
            while self._waiting:
                deployment, value, named = self._waiting[0]
                try:
                    kept = await self._link.unless_lost(
                        self._link.jetstream.publish(subjects.decision(deployment), value)
                    )
                except (nats.errors.Error, TimeoutError) as error:
                    log.warning("journal.failed", error=str(error) or type(error).__name__)
                    await asyncio.sleep(RETRY_S)
                    continue
                if self._waiting and self._waiting[0][1] is value:
                    self._waiting.popleft()
                    named(_name(deployment, kept.seq))
            if self._dropped:
                log.warning("journal.dropped", decisions=self._dropped)
                self._dropped = 0

    async def get(self, deployment: str, number: int) -> ScaleDecision | None:
        """A decision; None if there is none of that number that can be read, or not any more.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        found = await self._read(number)
        if found is None or found.subject != subjects.decision(deployment):
            return None
        return _decision(found)

    async def page(
        self, deployment: str, before: int | None, size: int
    ) -> tuple[list[ScaleDecision], int | None]:
        """Decisions, newest first.

        Args:
            deployment: its id; empty for all.
            before: number that all must be below; None for the newest.
            size: at most so many.

        Returns:
            The decisions, and the number below which the next page goes on; None if that was all.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        if not deployment:
            return await self._all(before, size)
        found = await self._of(deployment)
        older = [m for m in reversed(found) if before is None or (m.seq or 0) < before]
        more = len(older) > size
        made = [made for m in older[:size] if (made := _decision(m)) is not None]
        return made, (older[size - 1].seq if more else None)

    @asynccontextmanager
    async def following(self, deployment: str) -> AsyncIterator[AsyncIterator[ScaleDecision]]:
        """Decisions from the entry of the block on as they are made, for ever.

        Raises:
            nats.errors.Error: if NATS cannot be reached, or was lost.
        """
        subject = subjects.decision(deployment) if deployment else subjects.DECISIONS
        followed = await self._link.jetstream.subscribe(
            subject,
            stream=streams.DECISIONS,
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.NEW,
        )
        try:
            yield _decisions(followed.messages)
        finally:
            await followed.unsubscribe()

    async def _of(self, deployment: str) -> list[RawStreamMsg]:
        """All kept decisions of a deployment, oldest first."""
        found: list[RawStreamMsg] = []
        number = 1
        while len(found) < streams.MAX_DECISIONS_PER_DEPLOYMENT:
            message = await self._read(number, subjects.decision(deployment))
            if message is None or not message.seq:
                break
            found.append(message)
            number = message.seq + 1
        return found

    async def _all(self, before: int | None, size: int) -> tuple[list[ScaleDecision], int | None]:
        """A page of all decisions; it may be short, or empty, and yet not be the last one.

        A deployment whose decisions made room for its own leaves gaps, which are looked at in vain.
        """
        info = await self._link.jetstream.stream_info(streams.DECISIONS)
        number = min(info.state.last_seq, (before or info.state.last_seq + 1) - 1)
        found: list[ScaleDecision] = []
        gaps = 0
        while number and number >= info.state.first_seq and len(found) < size and gaps < MAX_GAPS:
            message = await self._read(number)
            decision = _decision(message) if message is not None else None
            if decision is None:
                gaps += 1
            else:
                found.append(decision)
            number -= 1
        more = number and number >= info.state.first_seq
        return found, (number + 1 if more else None)

    async def _read(self, number: int, subject: str | None = None) -> RawStreamMsg | None:
        """The message of a number, or the next one of a subject from that number on."""
        try:
            return await self._link.unless_lost(
                self._link.jetstream.get_msg(
                    streams.DECISIONS, number, subject, direct=True, next=subject is not None
                )
            )
        except nats.js.errors.NotFoundError:
            return None


async def _decisions(messages: AsyncIterator[Msg]) -> AsyncIterator[ScaleDecision]:
    async for message in messages:
        number = message.metadata.sequence.stream
        decision = _read_decision(message.data, message.subject, number)
        if decision is not None:
            yield decision


def _decision(message: RawStreamMsg) -> ScaleDecision | None:
    return _read_decision(message.data or b"", message.subject or "", message.seq or 0)


def _read_decision(data: bytes, subject: str, number: int) -> ScaleDecision | None:
    """The decision with its name, which only the stream knows; None if it cannot be read."""
    try:
        decision: ScaleDecision = ScaleDecision.FromString(data)
    except DecodeError:
        # One that is spoilt must not hide all others.
        log.warning("journal.malformed", number=number)
        return None
    decision.name = _name(subject.rpartition(".")[2], number)
    return decision


def _name(deployment: str, number: int) -> str:
    return f"{deployment_name(deployment)}/decisions/{number}"
