"""Feeds one READY replica: pulls requests by free slots, runs them, settles them in order.

The order is answer, then ack: a crash in between means one more delivery, never silence.
"""

import asyncio
import re
import secrets

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from forebay.v1.envelope_pb2 import (
    OUTCOME_ABORTED,
    OUTCOME_CANCELLED,
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_UNAVAILABLE,
    Outcome,
    RequestEnvelope,
)
from services.node_agent import attempt
from services.node_agent.answers import AnswerPublisher
from services.node_agent.ongoing import Ongoing
from services.node_agent.tallies import Tallies
from services.node_agent.tasks.slots import Slots
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.traces.tracing import AttemptTrace, NoTrace
from services.node_agent.triton.triton_client import TritonClient
from services.runtime import telemetry
from services.runtime.clock import Clock
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.outcomes import LABELS
from services.wire.server_clock import ServerClock

log = structlog.get_logger()

MAX_KILLS = 3
"""A request that was in the replica at this many deaths is not tried again."""

TICK_S = 0.5
MAX_CANCELLED = 4096

_PENDING = re.compile(rb"Nats-Pending-Messages: (\d+)")
_ACK, _PROGRESS, _TERM = b"+ACK", b"+WPI", b"+TERM"


class Intake:
    """The way from the queue into one Triton and back.

    Attributes:
        answered_count: requests that Triton answered.
        lost_count: requests that were inside when Triton, or the model's process, died.
    """

    def __init__(
        self,
        replica_id: str,
        deployment: str,
        slots: Slots,
        attempt_limit_s: float,
        ack_wait_s: float,
        client: TritonClient,
        link: NatsLink,
        clock: Clock,
        server_clock: ServerClock,
        tallies: Tallies,
        answers: AnswerPublisher,
        trace: ReplicaTrace,
    ) -> None:
        """Takes nothing until `run`.

        Args:
            replica_id: the replica.
            deployment: id of its deployment.
            slots: what it works on at once, shared with tasks.
            attempt_limit_s: the longest an attempt may run.
            ack_wait_s: how long a delivery may go without progress.
            client: of its Triton.
            link: to NATS.
            clock: this machine's.
            server_clock: nats-server's.
            tallies: what is counted.
            answers: where answers go.
            trace: what spans say of the replica.
        """
        self._replica_id = replica_id
        self._deployment = deployment
        self._attempt_limit_s = attempt_limit_s
        self._ack_wait_s = ack_wait_s
        self._client = client
        self._link = link
        self._clock = clock
        self._server_clock = server_clock
        self._tallies = tallies
        self._answers = answers
        self._trace = trace
        self._slots = slots
        slots.pull_requests = self._pull
        self._credit = slots.credit
        self._ongoing: dict[int, Ongoing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: dict[str, None] = {}
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.REQUESTS}.{deployment}"
        self._draining = False
        self._connection = 0
        self._unusable = asyncio.Event()
        self._why_unusable = ""
        self._subscriptions: list[Subscription] = []
        self.answered_count = 0
        self.lost_count = 0

    @property
    def ongoing_count(self) -> int:
        """Requests inside Triton now."""
        return len(self._ongoing)

    async def run(self) -> str:
        """Pulls and runs requests until Triton must be started anew; returns why.

        What is ongoing then goes on: end Triton, `give_back`, `close`.
        """
        client = self._link.client
        self._subscriptions = [
            await client.subscribe_direct(f"{self._inbox}.*", self._on_delivery),
            await client.subscribe(subjects.cancel(self._deployment), cb=self._on_cancel),
            await client.subscribe(subjects.statistics(self._deployment), cb=self._on_statistics),
        ]
        while not self._unusable.is_set():
            now_s = self._clock.monotonic_s()
            self._credit.expire(now_s)
            if self._link.connected:
                await self._renew(now_s)
            try:
                async with asyncio.timeout(TICK_S):
                    await self._unusable.wait()
            except TimeoutError:
                continue
        await self.stop_pulling()
        return self._why_unusable

    async def stop_pulling(self) -> None:
        """Takes nothing more, not even what was asked for: the server keeps that for others."""
        self._draining = True
        if self._subscriptions and self._link.client.is_connected:
            await self._link.client.unsubscribe_direct(self._subscriptions.pop(0))

    def limit_attempts(self, attempt_limit_s: float) -> None:
        """Changes the longest an attempt may run, also for those under way."""
        self._attempt_limit_s = attempt_limit_s

    async def give_back(self, timeout_s: float) -> None:
        """Waits until the requests of a Triton that has ended are back in the queue."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Ends the subscriptions and whatever is still ongoing."""
        self._draining = True
        if self._link.client.is_connected:
            for subscription in self._subscriptions:
                await self._link.client.unsubscribe_direct(subscription)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Pulls no more and waits until nothing is ongoing or on its way."""
        self._draining = True
        while self._ongoing or self._credit.on_the_way:
            self._credit.expire(self._clock.monotonic_s())
            await asyncio.sleep(0.05)

    async def _renew(self, now_s: float) -> None:
        if self._connection != self._link.connections:
            self._credit.lost()
            try:
                await streams.ensure_request_consumer(
                    self._link.jetstream, self._deployment, self._ack_wait_s
                )
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
                log.warning("intake.no_consumer", error=str(error) or type(error).__name__)
                return
            self._connection = self._link.connections
        self._pull()
        self._report_progress(now_s)

    def give_up(self, why: str) -> None:
        """Has Triton started anew; nothing more is pulled into this one."""
        self._draining = True
        self._why_unusable = why
        self._unusable.set()

    def _pull(self) -> None:
        if self._draining or not self._link.same_connection(self._connection):
            return
        now_s = self._clock.monotonic_s()
        count = self._slots.requests_wanted(now_s)
        if not count:
            return
        name, expires_s = self._slots.open_requests(count, now_s)
        expires_ns = int(expires_s * 1e9)
        try:
            self._link.client.send(
                self._pull_subject,
                f'{{"batch":{count},"expires":{expires_ns}}}'.encode(),
                reply=f"{self._inbox}.{name}",
            )
        except nats.errors.Error:
            self._credit.closed(name, count)

    def _on_delivery(
        self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if not reply:
            self._on_pull_ended(subject, headers or b"")
            return
        self._credit.delivered()
        now_s = self._clock.monotonic_s()
        envelope = RequestEnvelope.FromString(data)
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time ns>.<pending>,
        # with two tokens more before the stream where there is a domain.
        ack_subject = reply.decode()
        tokens = ack_subject.split(".")
        waited_s = self._server_clock.waited_s(int(tokens[-2]))
        delivery = int(tokens[-5])
        request = Ongoing(
            ack_subject=ack_subject,
            envelope=envelope,
            delivered_s=now_s,
            deadline_s=now_s + envelope.remaining_ms / 1000 - waited_s,
            progress_s=now_s,
            queue_wait_s=waited_s,
            delivery=delivery,
        )
        self._ongoing[id(request)] = request
        self._slots.request_came(id(request), now_s)
        if not self._credit.on_the_way:
            # Few are asked for at a time while there are tasks.
            self._pull()
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("attempt.defect", exc_info=task.exception(), replica=self._replica_id)

    def _on_pull_ended(self, subject: bytes, headers: bytes) -> None:
        """A status instead of a message, such as `NATS/1.0 408 Request Timeout`."""
        pull = subject[subject.rindex(b".") + 1 :].decode()
        left = _PENDING.search(headers)
        self._credit.closed(pull, int(left.group(1)) if left else 0)
        status = headers[9:12]
        if status in {b"404", b"408"}:
            self._pull()
        elif status in {b"409", b"503"}:
            # The consumer is gone, or its server is: the next tick makes sure of it.
            log.info("intake.pull_refused", status=status.decode(), deployment=self._deployment)
            self._connection = -1

    async def _on_cancel(self, msg: Msg) -> None:
        self._cancelled[msg.data.decode(errors="replace")] = None
        while len(self._cancelled) > MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]

    async def _on_statistics(self, msg: Msg) -> None:
        await msg.respond(await self._client.statistics())

    async def _serve(self, request: Ongoing) -> None:
        trace = AttemptTrace.start(request, self._trace)
        outcome: Outcome = OUTCOME_UNAVAILABLE
        try:
            outcome = await self._attempt(request, trace)
        except attempt.ReplicaLostError as error:
            trace.failed(str(error))
            outcome = await self._on_replica_lost(request, str(error))
        except attempt.BodyNotFetchedError as error:
            log.warning("attempt.body_not_fetched", reason=str(error))
            self._give_back(request)
        except attempt.RequestGoneError:
            outcome = OUTCOME_CANCELLED
            self._settle(request, _TERM)
        finally:
            del self._ongoing[id(request)]
            self._slots.request_left(id(request), self._clock.monotonic_s(), request.answered)
            self._tallies.count(outcome, request.queue_wait_s, trace.trace_id, trace.wall_s)
            trace.end(outcome)

    async def _attempt(self, request: Ongoing, trace: AttemptTrace | NoTrace) -> Outcome:
        if request.envelope.request_id in self._cancelled:
            self._settle(request, _TERM)
            return OUTCOME_CANCELLED
        if request.deadline_s <= request.delivered_s:
            # Its router has answered already; nothing may start now.
            self._settle(request, _TERM)
            return OUTCOME_DEADLINE_EXCEEDED
        metadata = trace.call_triton()
        answer = await attempt.run(request.envelope, self._client, self._link, metadata)
        ended_s = self._clock.monotonic_s()
        request.answered = True
        self._tallies.served(ended_s - request.delivered_s, trace.trace_id, trace.wall_s)
        trace.answered(answer)
        # The reply to an idempotent request is kept for whoever repeats it.
        if ended_s < request.deadline_s or request.envelope.keep_reply:
            trace.reply(request.envelope.keep_reply)
            await self._answers.publish(request, answer, ended_s)
        self._settle(request, _ACK)
        self.answered_count += 1
        if answer.message:
            log.info(
                "attempt.failed",
                outcome=LABELS[answer.outcome],
                request_id=request.envelope.request_id,
                trace_id=telemetry.trace_id(request.envelope.traceparent)
                or request.envelope.request_id,
                replica=self._replica_id,
            )
        return answer.outcome

    async def _on_replica_lost(self, request: Ongoing, reason: str) -> Outcome:
        """Triton died under a request: another attempt, unless it keeps happening to this one."""
        self._slots.note_loss()
        if request.over_limit:
            return await self._end(
                request,
                OUTCOME_DEADLINE_EXCEEDED,
                f"the model worked on this request for longer than request_timeout_s = "
                f"{self._attempt_limit_s:g}",
            )
        self.lost_count += 1
        log.warning(
            "attempt.replica_lost",
            request_id=request.envelope.request_id,
            delivery=request.delivery,
            replica=self._replica_id,
            reason=reason[:300],
        )
        # Triton does not start a Python process that died again, and says ready all the same.
        self.give_up(f"the model's process died: {reason}")
        if request.delivery < MAX_KILLS:
            self._give_back(request)
            return OUTCOME_UNAVAILABLE
        return await self._end(
            request,
            OUTCOME_ABORTED,
            f"{request.delivery} attempts at this request ended with a replica or an agent that "
            f"died: {reason}",
        )

    def _give_back(self, request: Ongoing) -> None:
        """Has the request delivered again, a moment later and apart from others.

        At once, it could come back to this replica; together, one bad request would take the same
        others along each time.
        """
        delay_ms = 50 + (request.delivery - 1) * (100 + secrets.randbelow(400))
        self._settle(request, f'-NAK {{"delay":{delay_ms * 1_000_000}}}'.encode())

    async def _end(self, request: Ongoing, outcome: Outcome, message: str) -> Outcome:
        """Answers a request that is not tried again."""
        answer = attempt.Answer(outcome, message, b"")
        await self._answers.publish(request, answer, self._clock.monotonic_s())
        self._settle(request, _TERM)
        return outcome

    def _settle(self, request: Ongoing, verb: bytes) -> None:
        try:
            self._link.client.send(request.ack_subject, verb)
        except nats.errors.Error as error:
            # Delivered again after the ack wait; the router drops the second answer.
            log.info(
                "attempt.not_settled", request_id=request.envelope.request_id, error=str(error)
            )

    def _report_progress(self, now_s: float) -> None:
        """Keeps deliveries from being given to others, while the attempt is within its limit."""
        for request in list(self._ongoing.values()):
            if request.over_limit:
                continue
            if now_s - request.delivered_s > self._attempt_limit_s:
                log.warning(
                    "attempt.over_limit",
                    request_id=request.envelope.request_id,
                    limit_s=self._attempt_limit_s,
                    replica=self._replica_id,
                )
                # Answered when its call fails, which it does once Triton is ended.
                request.over_limit = True
                self._slots.recycled = True
                self.give_up("an inference ran longer than request_timeout_s")
            elif now_s - request.progress_s >= self._ack_wait_s / 3:
                request.progress_s = now_s
                self._settle(request, _PROGRESS)
