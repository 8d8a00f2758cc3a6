"""Makes the calls that were ordered for ended tasks, while this autoscaler leads.

An order waits in a work queue until the receiver has taken the call, or until it is given up. A
call may be made twice, after a crash or a failover; it has the same `webhook-id` then.

Nothing is sent without a signature: where no secret is configured, orders wait.
"""

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from forebay.v1.task_record_pb2 import CallbackEnvelope
from services.autoscaler.callbacks import message, retries, signing
from services.autoscaler.callbacks.caller import Answer, Caller
from services.autoscaler.callbacks.hosts import Hosts, Offer
from services.autoscaler.callbacks.message import Message
from services.autoscaler.callbacks.signing import SecretError, Signer
from services.autoscaler.leadership import Leadership
from services.runtime.clock import Clock
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.tasks import streams

log = structlog.get_logger()

CONSUMER = "callbacks"
ACK_WAIT_S = 25.0
"""Longer than an order waits here, LONGEST_WAIT_S of `hosts`, and is then called. After a crash of
the leader it comes again within 30 s."""

PULL_S = 2.0
CROWDED_S = 5.0
RETRY_S = 1.0
SECRET_AGE_S = 10.0
"""How often the secret is read, and the room for orders looked at."""

FULL_RATIO = 0.8
KEPT_RATIO = 0.8
"""A fifth of the stream, 50 MB or about 80,000 orders, is more than come in 10 s."""

REMIND_S = 300.0

NOT_TRIED = "not tried, since its receiver did not answer other calls"


@dataclass(frozen=True, slots=True)
class Order:
    """An order that was fetched.

    Attributes:
        delivery: settles it.
        message: what is to be sent.
        ordered_s: when it was ordered, in seconds since the epoch.
    """

    delivery: Msg
    message: Message
    ordered_s: float


class Dispatcher:
    """Fetches orders and makes the calls."""

    def __init__(
        self,
        link: NatsLink,
        leadership: Leadership,
        clock: Clock,
        server_clock: ServerClock,
        caller: Caller,
        secret_file: Path | None,
    ) -> None:
        """Does nothing before `run`.

        Args:
            link: to NATS.
            leadership: only the leader calls.
            clock: dates signatures.
            server_clock: tells how old an order is.
            caller: makes calls; entered by `run`.
            secret_file: has the secrets that sign, one a line; None if there is none.
        """
        self._link = link
        self._leadership = leadership
        self._clock = clock
        self._server_clock = server_clock
        self._caller = caller
        self._secret_file = secret_file
        self._signer: Signer | None = None
        self._unsigned = False
        self._read_s = 0.0
        self._reminded_s: float | None = None
        self._hosts: Hosts[Order] = Hosts()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Calls whenever something is ordered and this process leads, for ever."""
        with self._leadership.changes() as changed:
            async with self._caller, asyncio.TaskGroup() as calls:
                while True:
                    changed.clear()
                    if not self._leadership.leading:
                        await changed.wait()
                        continue
                    try:
                        await self._lead(calls)
                    except (nats.errors.Error, TimeoutError) as error:
                        reason = str(error) or type(error).__name__
                        log.warning("callback.queue_failed", error=reason)
                    finally:
                        await self._put_back()
                    await asyncio.sleep(SECRET_AGE_S if self._unsigned else RETRY_S)

    async def _lead(self, calls: asyncio.TaskGroup) -> None:
        """Fetches and begins calls until this process ceases to lead or has no secret."""
        js = self._link.jetstream
        if not self._link.connected or not await self._may_sign(js):
            return
        await streams.ensure(js)
        await _ensure_consumer(js)
        pull = await js.pull_subscribe_bind(CONSUMER, streams.CALLBACKS)
        try:
            while self._leadership.leading and self._link.connected and await self._may_sign(js):
                for order in self._hosts.overdue(self._clock.monotonic_s()):
                    await self._again(order, NOT_TRIED)
                self._start(calls)
                if self._hosts.full:
                    await self._wait_for_room()
                    continue
                try:
                    [delivery] = await pull.fetch(1, timeout=PULL_S)
                except (nats.errors.TimeoutError, TimeoutError):
                    continue
                await self._take(delivery)
        finally:
            if self._link.client.is_connected:
                await pull.unsubscribe()

    async def _may_sign(self, js: JetStreamContext) -> bool:
        """Whether there is a secret; says now and then if calls wait for one."""
        now_s = self._clock.monotonic_s()
        if self._signer is not None and now_s - self._read_s < SECRET_AGE_S:
            return True
        waiting = await _make_room(js)
        problem = "callback_secret_file is not set; see docs/callbacks.md"
        self._signer = None
        if self._secret_file is not None:
            try:
                self._signer = await asyncio.to_thread(signing.read, self._secret_file)
                self._read_s = now_s
                await self._server_clock.sample()
            except SecretError as error:
                problem = str(error)
        self._unsigned = self._signer is None
        if not self._unsigned:
            self._reminded_s = None
        elif waiting and (self._reminded_s is None or now_s - self._reminded_s >= REMIND_S):
            log.error("callback.no_secret", waiting=waiting, problem=problem)
            self._reminded_s = now_s
        return not self._unsigned

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout(RETRY_S):
                await self._room.wait()
        except TimeoutError:
            return

    async def _take(self, delivery: Msg) -> None:
        """Has an order wait for its turn, or go back."""
        if not self._leadership.leading:
            await delivery.nak()
            return
        try:
            task = CallbackEnvelope.FromString(delivery.data).task
            order = Order(delivery, message.of(task), delivery.metadata.timestamp.timestamp())
        except (DecodeError, message.UnusableOrderError) as error:
            log.error("callback.unusable", subject=delivery.subject, error=str(error))
            await delivery.term()
            return
        match self._hosts.offer(order, order.message.host, self._clock.monotonic_s()):
            case Offer.CROWDED:
                await _settle(order, delivery.nak(delay=CROWDED_S * (1 + _chance())))
            case Offer.RESTS:
                await self._again(order, NOT_TRIED)
            case Offer.TAKEN:
                return

    def _start(self, calls: asyncio.TaskGroup) -> None:
        signer = self._signer
        if signer is None:
            return
        for order in self._hosts.start(self._clock.monotonic_s()):
            calls.create_task(self._call(order, signer, calls), name="callback")

    async def _call(self, order: Order, signer: Signer, calls: asyncio.TaskGroup) -> None:
        """Makes one attempt, settles the order and begins what could not begin before."""
        told = order.message
        answered = False
        try:
            answer = await self._caller.call(told, signer.headers(told, self._clock.wall_s()))
            answered = answer.status is not None
            await self._settle_call(order, answer)
        except asyncio.CancelledError:
            # This process ends; the next leader need not wait for ACK_WAIT_S.
            await _settle(order, order.delivery.nak())
            raise
        finally:
            dropped = self._hosts.ended(told.host, answered, self._clock.monotonic_s())
            self._room.set()
        for other in dropped:
            await self._again(other, NOT_TRIED)
        if self._leadership.leading:
            self._start(calls)

    async def _settle_call(self, order: Order, answer: Answer) -> None:
        told = order.message
        if answer.status is not None and retries.taken(answer.status):
            await _settle(order, order.delivery.ack_sync(timeout=PULL_S))
            log.info("callback.taken", task=told.task, host=told.host, status=answer.status)
        elif answer.status == retries.GONE:
            await _settle(order, order.delivery.term())
            log.warning("callback.stopped", task=told.task, host=told.host, status=retries.GONE)
        else:
            await self._again(order, answer.problem or f"the receiver answered {answer.status}")

    async def _again(self, order: Order, reason: str) -> None:
        """Has an order come again later, unless it is too old."""
        told = order.message
        age_s = self._server_clock.now_s() - order.ordered_s
        pause_s = retries.pause_s(age_s, _chance())
        if pause_s is None:
            log.error("callback.given_up", task=told.task, host=told.host, reason=reason)
            await _settle(order, order.delivery.term())
            return
        # Those that were not tried are many, and the one that failed is told.
        write = log.debug if reason == NOT_TRIED else log.warning
        again_in_s = round(pause_s, 1)
        write(
            "callback.failed", task=told.task, host=told.host, reason=reason, again_in_s=again_in_s
        )
        await _settle(order, order.delivery.nak(delay=pause_s))

    async def _put_back(self) -> None:
        """Gives all orders that wait here back to the queue, for whoever leads next."""
        for order in self._hosts.clear():
            await _settle(order, order.delivery.nak())


def _chance() -> float:
    return random.random()  # noqa: S311, nothing secret


async def _settle(order: Order, settling: Coroutine[Any, Any, object]) -> None:
    try:
        await settling
    except (nats.errors.Error, TimeoutError) as error:
        # It is delivered once more when ACK_WAIT_S is over.
        reason = str(error) or type(error).__name__
        log.warning("callback.not_settled", task=order.message.task, error=reason)


async def _make_room(js: JetStreamContext) -> int:
    """Drops the oldest orders where there is hardly room for more; returns how many there are.

    A task is settled only when its call is ordered, so orders that nobody takes would stop tasks.
    """
    info = await js.stream_info(streams.CALLBACKS)
    count, limit = int(info.state.messages), info.config.max_bytes or 0
    if limit <= 0 or info.state.bytes < FULL_RATIO * limit:
        return count
    keep = max(1, int(KEPT_RATIO * count))
    await js.purge_stream(streams.CALLBACKS, keep=keep)
    log.error("callback.dropped", count=count - keep, reason="there is no room for more orders")
    return keep


async def _ensure_consumer(js: JetStreamContext) -> None:
    await js.add_consumer(
        streams.CALLBACKS,
        ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            # How old an order is says when it is given up.
            max_deliver=-1,
            # Those that wait for their next attempt count too.
            max_ack_pending=1_000_000,
        ),
    )
