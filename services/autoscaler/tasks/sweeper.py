"""Looks through all tasks again and again, while this autoscaler leads, and repairs what is wrong.

Replicas and routers end tasks by themselves; what is repaired here is left behind when one of them
dies between two steps, or when nobody is there to take a step. Why nothing is missed:

- A task leaves the queue only after its end is written and its callback is ordered. Whoever dies
  in between leaves it in the queue: there is no ended task without an order that could not be found
  by looking at the queue, and a sweep looks at every task in it.
- A replica that gives a task up writes the dead letter first, then the end. Every dead letter is
  looked at once, when it is a few seconds old.
- JetStream stops delivering a task after `streams.MAX_DELIVER` deliveries. It says so once, which a
  stream of its own keeps; and such a task lies below what its consumer is done with, which is
  looked at too.
- A large result is written before the end of its task. If that end never comes, the result is
  forgotten after the task's result_ttl; nothing is done about it here.
"""

import asyncio

import nats.errors
import structlog
from google.protobuf.message import DecodeError

from services.autoscaler.leadership import Leadership, NotLeadingError
from services.autoscaler.tasks import findings, notices, sweep_record
from services.autoscaler.tasks.findings import Missing
from services.autoscaler.tasks.lanes import Lanes, Queue
from services.autoscaler.tasks.repairs import Repairs
from services.autoscaler.tasks.sweep_record import SweepRecord
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.stored_publisher import NotStoredError
from services.wire.tasks import streams
from services.wire.tasks.ledger import TaskLedger

log = structlog.get_logger()

NOT_READY_S = 0.5
THOROUGH_S = 60.0
"""How often lanes are compared with their consumers, and records of attempts with the queue: each
takes a question to the server of its own."""

RECORD_S = 60.0
"""How often what is kept of sweeps is written though nothing was repaired."""


class TaskSweeper:
    """Sweeps, and says what it has repaired.

    Attributes:
        record: what is kept of the last sweep.
    """

    def __init__(
        self,
        link: NatsLink,
        ledger: TaskLedger,
        deployments: KvMirror,
        leadership: Leadership,
        clock: Clock,
        server_clock: ServerClock,
    ) -> None:
        """Does nothing before `run`.

        Args:
            link: to NATS.
            ledger: of tasks.
            deployments: what is declared, `spec.{deployment}`.
            leadership: only the leader sweeps.
            clock: tells how long something takes.
            server_clock: tells what has expired, by the one clock that routers and agents go by.
        """
        self._link = link
        self._ledger = ledger
        self._deployments = deployments
        self._leadership = leadership
        self._clock = clock
        self._server_clock = server_clock
        self._lanes = Lanes(link, ledger, server_clock)
        self._missing = Missing()
        self._owners: set[str] = set()
        self._epoch = 0
        self._thorough_s: float | None = None
        self._recorded_s: float | None = None
        self.record = SweepRecord()

    async def run(self) -> None:
        """Sweeps whenever it is time and this process leads, for ever."""
        with self._leadership.changes() as changed:
            while True:
                changed.clear()
                pause_s = await self._sweep_if_leading()
                try:
                    async with asyncio.timeout(pause_s):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def sweep(self) -> Queue:
        """Looks at everything once.

        Returns:
            What is in the queue.

        Raises:
            NotLeadingError: if this process does not lead, or ceases to.
            nats.errors.Error: if NATS cannot be reached.
            services.wire.stored_publisher.NotStoredError: if there is no room for an end.
        """
        epoch = self._leadership.epoch
        self._leadership.fence(epoch)
        if epoch != self._epoch:
            await self._begin_term()
            self._epoch = epoch
        started_s = self._clock.monotonic_s()
        await self._server_clock.sample()
        clock = self._server_clock
        repairs = Repairs(self._ledger, lambda: self._leadership.fence(epoch), clock)
        reader, record = self._ledger.reader, self.record
        record.advisory_sequence = await notices.read_advisories(
            self._link.jetstream, reader, repairs, record.advisory_sequence
        )
        record.dead_sequence = await notices.read_dead(reader, repairs, clock, record.dead_sequence)
        declared = self._deployments.entries("spec.").keys()
        gone = self._missing.gone(started_s, self._owners, declared)
        queue = await self._lanes.look(repairs, gone)
        owners = await self._lanes.mend_consumers(repairs, queue, declared, gone)
        self._owners = owners | {deployment for deployment, _ in queue.lanes}
        if self._thorough_s is None or started_s - self._thorough_s >= THOROUGH_S:
            await self._lanes.look_below_floors(repairs, queue)
            await self._lanes.look_at_progress(repairs)
            self._thorough_s = started_s
        queue.more = queue.more and not repairs.failures
        await self._keep(repairs, queue, started_s)
        return queue

    async def _sweep_if_leading(self) -> float:
        """Sweeps if this process leads; returns how long to wait then, in seconds."""
        if not self._leadership.leading:
            return findings.LONGEST_PAUSE_S
        if not (self._link.connected and self._deployments.known):
            return NOT_READY_S
        try:
            queue = await self.sweep()
        except NotLeadingError as error:
            log.info("tasks.sweep_given_up", reason=str(error))
        except (nats.errors.Error, NotStoredError, DecodeError, TimeoutError) as error:
            log.warning("tasks.sweep_failed", error=str(error) or type(error).__name__)
        else:
            return findings.pause_s(self.record.took_s, queue.more)
        return findings.SHORTEST_PAUSE_S

    async def _begin_term(self) -> None:
        """Reads what earlier leaders have kept."""
        js = self._link.jetstream
        await streams.ensure(js)
        record = await sweep_record.load(js)
        # A stream that was made anew counts from 1 again.
        if (await js.stream_info(streams.ADVISORIES)).state.last_seq < record.advisory_sequence:
            record.advisory_sequence = 0
        if (await js.stream_info(streams.DEAD)).state.last_seq < record.dead_sequence:
            record.dead_sequence = 0
        self.record, self._missing, self._owners = record, Missing(), set()
        self._thorough_s = self._recorded_s = None

    async def _keep(self, repairs: Repairs, queue: Queue, started_s: float) -> None:
        """Says what was repaired, and keeps it."""
        now_s = self._clock.monotonic_s()
        counts = {repair.value: count for repair, count in repairs.counts.items()}
        record = self.record
        record.end_time_s, record.took_s = self._server_clock.now_s(), now_s - started_s
        record.waiting_count = queue.lanes.total()
        record.last_repairs = counts
        record.repairs.update(counts)
        for reason, count in repairs.failures.items():
            log.warning("tasks.not_repaired", count=count, error=reason)
        if counts:
            took_s = round(record.took_s, 3)
            log.info("tasks.swept", waiting=record.waiting_count, took_s=took_s, **counts)
        if counts or self._recorded_s is None or now_s - self._recorded_s >= RECORD_S:
            await sweep_record.save(self._link.jetstream, record)
            self._recorded_s = now_s
