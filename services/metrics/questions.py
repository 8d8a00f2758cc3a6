"""Questions to JetStream whose answers come to plain functions: nobody waits for one.

At a thousand a second, a future and a timeout for each would cost more than all else here.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
import structlog

from services.wire.data_lane import DirectHandler
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

TICK_S = 0.1
SWEEP_INTERVAL_S = 1.0

MAX_POLLS_PER_S = 1000
"""Of each of those who ask."""

STALE_AFTER_S = 5.0
"""Figures older than this are not given."""

CONSUMER_MISSING = 10014
"""JetStream's error code for a consumer that is not there."""

Answer = Callable[[str, bytes, bytes], None]
"""Called with the rest of the question's token, the payload and the headers as they came."""


class Questions:
    """One asker's questions and its inbox."""

    def __init__(self, link: NatsLink) -> None:
        """Nothing is heard before `listen`."""
        self._link = link
        self._inbox = link.client.new_inbox()
        self._answers: Mapping[str, Answer] = {}

    async def listen(
        self, answers: Mapping[str, Answer], words: Mapping[str, DirectHandler]
    ) -> None:
        """Has answers and others' words called for. Once: subscriptions outlive reconnections.

        Args:
            answers: by kind of question.
            words: by subject.
        """
        if self._answers:
            return
        await self._link.client.subscribe_direct(f"{self._inbox}.>", self._on_answer)
        for subject, handler in words.items():
            await self._link.client.subscribe_direct(subject, handler)
        self._answers = answers

    def ask(self, api: str, kind: str, token: str, question: dict[str, Any] | None = None) -> None:
        """Asks; the answer comes to the function for its kind, or never.

        Args:
            api: what follows `$JS.API.`.
            kind: of question; without dots.
            token: comes back with the answer.
            question: empty if there is none.

        Raises:
            nats.errors.Error: if the connection was just lost.
        """
        payload = json.dumps(question).encode() if question else b""
        self._link.client.send(f"$JS.API.{api}", payload, f"{self._inbox}.{kind}.{token}")

    def _on_answer(self, subject: bytes, _: bytes, data: bytes, headers: bytes | None) -> None:
        kind, token = subject[len(self._inbox) + 1 :].decode().split(".", 1)
        self._answers[kind](token, data, headers or b"")


async def ask_for_ever(link: NatsLink, tick: Callable[[], None]) -> None:
    """Calls `tick` every TICK_S while the link is connected.

    Args:
        link: to NATS.
        tick: asks what is due; may raise nats.errors.Error if the connection was just lost.
    """
    while True:
        if link.connected:
            try:
                tick()
            except nats.errors.Error as error:
                log.debug("queues.not_asked", error=str(error) or type(error).__name__)
        await asyncio.sleep(TICK_S)


def said(data: bytes) -> dict[str, Any] | None:
    """What JetStream said; None if it is not there: then nats-server answers without a word."""
    if not data:
        return None
    words: dict[str, Any] = json.loads(data)
    return words


def fields(headers: bytes) -> dict[str, str]:
    """The headers of a directly read message."""
    return dict(line.split(": ", 1) for line in headers.decode().split("\r\n") if ": " in line)


def last_token(subject: bytes) -> str:
    """The last token of a subject."""
    return subject[subject.rindex(b".") + 1 :].decode()
