"""Asks the queue for tasks while no request waits, and hands them to their attempts."""

import asyncio
import secrets
from collections.abc import Callable

import nats.errors
import structlog
from nats.aio.subscription import Subscription

from forebay.v1.task_record_pb2 import TaskEnvelope
from services.node_agent.tallies import Tallies
from services.node_agent.tasks.lanes import Lanes
from services.node_agent.tasks.ongoing_task import OngoingTask
from services.node_agent.tasks.settlement import Settlement
from services.node_agent.tasks.slots import UNFILLED_S, Slots
from services.node_agent.tasks.task_attempts import Share, TaskAttempts
from services.node_agent.tasks.usage_notes import UsageNotes
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.triton.triton_client import TritonClient
from services.runtime.clock import Clock
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()

TICK_S = 0.25
MAX_CANCELLED = 4096

LEAVE_S = 2.0
"""How long to write down what is given back."""


class TaskIntake:
    """The way of tasks from the queue into one Triton and back."""

    def __init__(
        self,
        replica_id: str,
        node: str,
        share: Share,
        slots: Slots,
        ack_wait_s: float,
        client: TritonClient,
        link: NatsLink,
        ledger: TaskLedger,
        clock: Clock,
        server_clock: ServerClock,
        tallies: Tallies,
        usage: UsageNotes,
        give_up: Callable[[str], None],
        trace: ReplicaTrace,
    ) -> None:
        """Takes nothing until `run`.

        Args:
            replica_id: the replica.
            node: id of its node.
            share: what each task has of the replica.
            slots: shared with requests.
            ack_wait_s: how long a delivery may go without progress.
            client: of its Triton.
            link: to NATS.
            ledger: where what becomes of tasks is written down.
            clock: this machine's.
            server_clock: nats-server's.
            tallies: what is counted.
            usage: what was done for whom.
            give_up: has Triton started anew, and says why.
            trace: what spans say of the replica.
        """
        self._deployment = share.deployment
        self._slots = slots
        self._ack_wait_s = ack_wait_s
        self._link = link
        self._clock = clock
        self._lanes = Lanes()
        self._settlement = Settlement(replica_id, node, ledger, link, server_clock, self._returns)
        self._attempts = TaskAttempts(
            share, slots, client, clock, self._settlement, tallies, usage, give_up, trace
        )
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._subscriptions: list[Subscription] = []
        self._cancelled: dict[str, None] = {}
        self._connection = 0
        self._stopped = False
        self._later: asyncio.TimerHandle | None = None
        slots.pull_tasks = self._fill

    @property
    def answered_count(self) -> int:
        """Tasks that Triton answered."""
        return self._attempts.answered_count

    @property
    def lost_count(self) -> int:
        """Tasks that were inside when Triton died or was ended for one of them."""
        return self._attempts.lost_count

    @property
    def excused(self) -> bool:
        """Whether Triton died of a task that had been in one that died before."""
        return self._attempts.excused

    async def run(self) -> None:
        """Takes and runs tasks until cancelled; then `close`."""
        client, deployment = self._link.client, self._deployment
        self._subscriptions = [
            await client.subscribe_direct(f"{self._inbox}.*", self._on_delivery),
            await client.subscribe_direct(subjects.waiting(deployment), self._on_waiting),
            await client.subscribe_direct(subjects.cancel(deployment), self._on_cancel),
        ]
        watched_s = float("-inf")
        while True:
            now_s = self._clock.monotonic_s()
            if self._link.connected:
                if self._connection != self._link.connections:
                    self._connection = self._link.connections
                    self._lanes.lost()
                self._lanes.tick(now_s)
                self._fill()
            if now_s - watched_s >= TICK_S:
                watched_s = now_s
                self._attempts.watch(now_s, self._ack_wait_s)
            await asyncio.sleep(min(TICK_S, self._lanes.next_tick_s(now_s)))

    def stop_pulling(self) -> None:
        """Takes nothing more; what comes all the same is given back."""
        self._stopped = True
        self._attempts.leave()

    async def drain(self) -> None:
        """Takes nothing more and waits until everything is settled."""
        self.stop_pulling()
        while self._attempts.held or self._lanes.asked:
            self._lanes.tick(self._clock.monotonic_s())
            await asyncio.sleep(0.05)

    async def give_back(self, timeout_s: float) -> None:
        """Waits until what was in a Triton that has ended is settled."""
        self.stop_pulling()
        await self._attempts.settled(timeout_s)

    async def give_back_running(self) -> None:
        """Gives back what Triton still works on, so that another replica runs it."""
        self.stop_pulling()
        await self._attempts.give_back_running(LEAVE_S)

    async def close(self) -> None:
        """Ends the subscriptions and whatever is still going on."""
        self.stop_pulling()
        self._slots.pull_tasks = lambda: None
        if self._later is not None:
            self._later.cancel()
        await self._attempts.close()
        subscriptions, self._subscriptions = self._subscriptions, []
        if self._link.client.is_connected:
            for subscription in subscriptions:
                await self._link.client.unsubscribe_direct(subscription)

    def _fill(self) -> None:
        """Asks for tasks, if there is room for them and no request waits."""
        if self._stopped or not self._link.connected or self._attempts.backlogged:
            return
        lane = self._lanes.to_ask()
        now_s = self._clock.monotonic_s()
        room = self._slots.room_for_tasks(now_s) if lane is not None else 0
        if lane is None or not room:
            return
        if not self._slots.no_request_waits(now_s):
            self._slots.pull_requests()
            if self._later is None and self._slots.credit.on_the_way:
                self._later = asyncio.get_running_loop().call_later(UNFILLED_S, self._fill_again)
            return
        name = self._lanes.ask(lane, room, now_s)
        consumer = streams.consumer(self._deployment, lane)
        try:
            self._link.client.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{streams.TASKS}.{consumer}",
                b'{"batch":%d,"no_wait":true}' % room,
                reply=f"{self._inbox}.{name}",
            )
        except nats.errors.Error:
            self._lanes.lost()

    def _fill_again(self) -> None:
        self._later = None
        self._fill()

    def _on_delivery(
        self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if not reply:
            # A status instead of a message: no more comes.
            self._lanes.answered(subject[subject.rindex(b".") + 1 :].decode())
            self._fill()
            return
        now_s = self._clock.monotonic_s()
        self._lanes.delivered(now_s)
        envelope = TaskEnvelope.FromString(data)
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time ns>.<pending>,
        # with two tokens more before the stream where there is a domain.
        ack_subject = reply.decode()
        delivery = int(ack_subject.rsplit(".", 5)[1])
        task = OngoingTask(
            envelope=envelope,
            ack_subject=ack_subject,
            delivery=delivery,
            delivered_s=now_s,
            progress_s=now_s,
            limit_s=envelope.task.attempt_timeout.ToNanoseconds() / 1e9,
            connections=self._link.connections,
        )
        if self._stopped:
            self._settlement.give_back_now(task)
            return
        twin = self._attempts.held.get(envelope.task_id)
        if twin is not None and (twin.cancelled_s is None or twin.sequence == task.sequence):
            # We were deaf for longer than the ack wait; it is in good hands.
            twin.ack_subject, twin.delivery = ack_subject, delivery
            return
        if envelope.task_id in self._cancelled:
            task.cancelled_s = now_s
        self._attempts.take(task)
        self._fill()

    def _on_waiting(self, _: bytes, __: bytes, ___: bytes, ____: bytes | None) -> None:
        self._lanes.wake()
        self._fill()

    def _on_cancel(self, _: bytes, __: bytes, data: bytes, ___: bytes | None) -> None:
        task_id = data.decode(errors="replace")
        if self._attempts.cancel(task_id):
            return
        self._cancelled[task_id] = None
        while len(self._cancelled) > MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]

    def _returns(self, delay_s: float) -> None:
        self._lanes.returns(self._clock.monotonic_s() + delay_s)
