"""The scale decisions of the last half hour, read from the autoscaler's journal."""

import asyncio
from collections import deque
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog
from google.protobuf.message import DecodeError

from forebay.v1.scaling_pb2 import ScaleDecision
from services.metrics.page.history import INTERVAL_S
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.stream_reader import StoredMessage, StreamReader

log = structlog.get_logger()

MAX_KEPT = 5_000
MAX_READ_AT_START = 2_000
MAX_REASON_CHARACTERS = 300
BATCH = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """What the page tells of a scale decision.

    Attributes:
        number: the decision's own, which `forebay decisions` knows it by.
        deployment: id.
        decide_s: when, in seconds since the epoch on the autoscaler's clock.
        target_before: replicas.
        target_after: replicas.
        applied: whether it is acted on.
        rule: the rule that had the last word, in lower case.
        reason: one sentence.
    """

    number: int
    deployment: str
    decide_s: float
    target_before: int
    target_after: int
    applied: bool
    rule: str
    reason: str


class RecentDecisions:
    """The last MAX_KEPT decisions that are not older than the history."""

    def __init__(self, link: NatsLink) -> None:
        """Knows nothing until `run` does."""
        self._link = link
        self._reader = StreamReader(link)
        self._kept: deque[Decision] = deque(maxlen=MAX_KEPT)
        self._next = 0
        self._connections = -1

    async def run(self) -> None:
        """Reads for ever."""
        while True:
            if self._link.connected:
                try:
                    await self._read()
                except (nats.errors.Error, TimeoutError) as error:
                    # No autoscaler has ever run, or NATS went away: tried again either way.
                    log.debug("page.decisions_unread", error=str(error) or type(error).__name__)
                    self._connections = -1
            await asyncio.sleep(INTERVAL_S)

    def since(self, wall_s: float, deployment: str = "") -> list[Decision]:
        """Decisions made at an instant or later, oldest first.

        Args:
            wall_s: seconds since the epoch.
            deployment: id; empty for all.
        """
        return [
            decision
            for decision in self._kept
            if decision.decide_s >= wall_s and deployment in ("", decision.deployment)
        ]

    async def _read(self) -> None:
        if self._connections != self._link.connections:
            await self._begin()
        while True:
            found = await self._reader.read(
                streams.DECISIONS, subjects.DECISIONS, self._next, count=BATCH
            )
            for message in found:
                self._next = message.sequence + 1
                decision = decision_of(message)
                if decision is not None:
                    self._kept.append(decision)
            if len(found) < BATCH:
                return

    async def _begin(self) -> None:
        """Finds where to read on, after the first and each further connection."""
        connections = self._link.connections
        info = await self._link.unless_lost(self._link.jetstream.stream_info(streams.DECISIONS))
        last = info.state.last_seq
        if last + 1 < self._next:
            # Not the stream it was.
            self._kept.clear()
            self._next = 0
        self._next = max(self._next, info.state.first_seq, last + 1 - MAX_READ_AT_START)
        self._connections = connections


def decision_of(message: StoredMessage) -> Decision | None:
    """What the page tells of a kept decision; None if it cannot be read."""
    try:
        decision = ScaleDecision.FromString(message.data)
    except DecodeError:
        log.warning("page.decision_malformed", number=message.sequence)
        return None
    return Decision(
        number=message.sequence,
        deployment=message.subject.rpartition(".")[2],
        decide_s=decision.decide_time.ToNanoseconds() / 1e9,
        target_before=decision.target_before,
        target_after=decision.target_after,
        applied=decision.applied,
        rule=_rule(decision.rule),
        reason=decision.reason[:MAX_REASON_CHARACTERS],
    )


def _rule(rule: "ScaleDecision.Rule") -> str:
    try:
        name: str = ScaleDecision.Rule.Name(rule)
    except ValueError:
        return "unknown"
    return name.removeprefix("RULE_").lower()
