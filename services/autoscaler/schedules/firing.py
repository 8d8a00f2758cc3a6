"""Fires schedules: the leader's work. Each slot fires exactly once.

A slot is decided in three writes, and whoever goes on after a crash begins where they stopped:

1. The schedule's entry, by compare-and-set: the run is begun, and the mark of slots that nobody has
   decided about moves beyond it. Of two who think they lead one succeeds; the other reads anew and
   finds the slot decided. A crash before this: the successor decides the slot itself.
2. The task, into the queue. Its id follows from schedule and slot, so that it is the same task
   however often it is stored.
3. The entry again: the run has its action. A crash before this leaves a run that is begun. The
   successor looks for its task: in the queue or among those that have ended, it was stored; if it
   is in neither and cannot have been forgotten yet, it was not, and is stored now.

Why never twice: a slot has one mark, moved by one compare-and-set, and one task id. A leader that
was frozen between 1 and 2 asks for its lease again before 2; if it is frozen between that question
and its answer's use, its task has the id of the successor's. JetStream drops the second within its
window for duplicates, and after that at most one of the two can end.

Why never not: a run that is begun is looked at until it has an action. The task of a slot is kept
for `result_ttl` after it has ended, ten minutes at least. Only if nobody led for that long right
after a crash between 1 and 3 can it not be told whether the task was stored. Then it is not stored,
and the history says so: a second run of something that has run is the worse mistake.
"""

import asyncio

import nats.errors
import nats.js.errors
import structlog

from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from services.autoscaler.leadership import Leadership, NotLeadingError
from services.autoscaler.schedules import due, history
from services.autoscaler.schedules.schedules import KEY, slot_key, split_key
from services.autoscaler.schedules.submitter import Submitter
from services.runtime.clock import Clock
from services.wire import cron
from services.wire.kv_mirror import KvEntry, KvMirror
from services.wire.outcomes import OutcomeError
from services.wire.stored_publisher import NotStoredError

log = structlog.get_logger()

TICK_S = 1.0
"""How often it looks at least: the wall clock may jump."""

SOONEST_S = 0.05
MAX_AT_ONCE = 16

RETRY_S = 60.0
"""For how long a task is tried again that the queue refuses."""

FORGOTTEN_MARGIN_S = 60.0
"""By so much earlier than `result_ttl` says a task is taken to be forgotten: clocks differ."""


class Firing:
    """Looks at all schedules, and fires those that are due as long as this autoscaler leads."""

    def __init__(
        self, mirror: KvMirror, submitter: Submitter, leadership: Leadership, clock: Clock
    ) -> None:
        """Fires nothing before `run`.

        Args:
            mirror: of the bucket of schedules.
            submitter: of their tasks.
            leadership: only the leader fires.
            clock: its wall clock says what is due.
        """
        self._mirror = mirror
        self._submitter = submitter
        self._leadership = leadership
        self._clock = clock
        # By key; as many as there are schedules.
        self._read: dict[str, tuple[int, Schedule]] = {}
        self._unreadable: dict[str, int] = {}

    async def run(self) -> None:
        """Fires what is due, for ever."""
        with self._mirror.changes() as changed, self._leadership.changes(changed):
            while True:
                changed.clear()
                await self.look()
                try:
                    async with asyncio.timeout(self._pause_s()):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def look(self) -> None:
        """Fires what is due now; what fails is tried again at the next look."""
        if not self._leadership.leading or not self._mirror.known:
            return
        now_s = self._clock.wall_s()
        wanted = [key for key, schedule in self._schedules().items() if _is_due(schedule, now_s)]
        for start in range(0, len(wanted), MAX_AT_ONCE):
            some = wanted[start : start + MAX_AT_ONCE]
            await asyncio.gather(*(self._attempt(key) for key in some))

    def _schedules(self) -> dict[str, Schedule]:
        """All schedules by key; only those that changed are read anew."""
        entries = self._mirror.entries(KEY)
        for gone in self._read.keys() - entries.keys():
            del self._read[gone]
            self._unreadable.pop(gone, None)
        for key, entry in entries.items():
            known = self._read.get(key)
            if known is None or known[0] != entry.revision:
                self._read[key] = (entry.revision, Schedule.FromString(entry.value))
        return {key: schedule for key, (_, schedule) in self._read.items()}

    def _pause_s(self) -> float:
        """Until the next slot, or the next tick."""
        if not self._leadership.leading:
            return TICK_S
        now_s = self._clock.wall_s()
        slots = [history.undecided_s(schedule) for _, schedule in self._read.values()]
        soonest_s = min((slot_s - now_s for slot_s in slots if slot_s is not None), default=TICK_S)
        if soonest_s <= 0:
            # What is due and was not fired could not be: not at once again.
            return TICK_S
        return max(SOONEST_S, min(TICK_S, soonest_s))

    async def _attempt(self, key: str) -> None:
        entry = self._mirror.get(KEY + key)
        if entry is None:
            return
        try:
            await self._decide(key, entry)
        except nats.js.errors.KeyWrongLastSequenceError:
            # Somebody else has decided, or it was changed: what is there now counts.
            await self._refresh(key, entry)
        except NotLeadingError as error:
            log.info("schedule.not_leading", schedule=key, reason=str(error))
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("schedule.not_fired_yet", schedule=key, error=repr(error))
        except cron.CronError as error:
            # It was legal when it was declared: this machine knows fewer time zones.
            if self._unreadable.get(key) != entry.revision:
                self._unreadable[key] = entry.revision
                log.error("schedule.unreadable", schedule=key, error=str(error))

    async def _refresh(self, key: str, stale: KvEntry) -> None:
        if self._mirror.get(KEY + key) != stale:
            return
        try:
            await self._mirror.reload()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("schedule.not_read", schedule=key, error=repr(error))

    async def _decide(self, key: str, entry: KvEntry) -> None:
        """Decides what is due of one schedule, and carries it out."""
        schedule = Schedule.FromString(entry.value)
        if history.begun(schedule) is not None:
            await self._carry_out(key, entry, schedule)
            return
        undecided_s = history.undecided_s(schedule)
        if undecided_s is None:
            return
        now_s = self._clock.wall_s()
        comes = cron.parse(schedule.when, schedule.timezone)
        found = due.look(comes, undecided_s, schedule.missed_policy, now_s)
        if found is None:
            return
        history.decide(schedule, comes, found, now_s)
        if found.fires:
            run = await self._begin(key, schedule, found.slot_s, now_s)
            if found.last_missed_s == found.slot_s:
                run.message = "; ".join(
                    part for part in (run.message, history.missed_sentence(comes, found)) if part
                )
            history.add(schedule, run)
        entry = await self._write(key, entry, schedule)
        run_begun = history.begun(schedule)
        if run_begun is None:
            log.info("schedule.decided", schedule=key, reason=schedule.runs[0].message)
        else:
            await self._carry_out(key, entry, schedule)

    async def _begin(self, key: str, schedule: Schedule, slot_s: int, now_s: float) -> ScheduleRun:
        """The run of a slot that fires: begun, or why it is not."""
        tenant, name = split_key(key)
        try:
            envelope = await self._submitter.envelope(schedule, tenant, slot_key(name, slot_s))
        except OutcomeError as error:
            failed = ScheduleRun.ACTION_FAILED
            return history.run_of(slot_s, now_s, failed, message=error.message)
        if schedule.overlap_policy == Schedule.OVERLAP_POLICY_SKIP:
            earlier = await self._submitter.unended(_earlier(schedule))
            if earlier:
                message = f"{earlier[0]} has not ended"
                skipped = ScheduleRun.ACTION_SKIPPED_OVERLAP
                return history.run_of(slot_s, now_s, skipped, message=message)
        return history.run_of(slot_s, now_s, history.BEGUN, task=envelope.task.name)

    async def _carry_out(self, key: str, entry: KvEntry, schedule: Schedule) -> None:
        """Sees to it that the task of a run that is begun is stored, and says so."""
        run = history.begun(schedule)
        assert run is not None, "a run that is begun"
        failure = await self._failure(key, schedule, run)
        if failure is None:
            return
        run.action = ScheduleRun.ACTION_FAILED if failure else ScheduleRun.ACTION_SUBMITTED
        if failure:
            run.task = ""
            run.message = failure
        await self._write(key, entry, schedule)
        log.info("schedule.fired", schedule=key, task=run.task, failure=failure)

    async def _failure(self, key: str, schedule: Schedule, run: ScheduleRun) -> str | None:
        """Why the task of a run is not stored; empty if it is; None if that is not settled yet."""
        if await self._submitter.is_stored(run.task):
            return ""
        tenant, name = split_key(key)
        age_s = self._clock.wall_s() - run.fire_time.ToNanoseconds() / 1e9
        try:
            envelope = await self._submitter.envelope(
                schedule, tenant, slot_key(name, run.slot_time.seconds)
            )
            kept_s = envelope.task.result_ttl.ToNanoseconds() / 1e9
            if age_s > kept_s - FORGOTTEN_MARGIN_S:
                return (
                    "the autoscaler died while it submitted the task, and nobody looked for so "
                    "long that the task, if it was stored, is forgotten: it is not submitted again"
                )
            if envelope.task.name != run.task and await self._submitter.is_stored(
                envelope.task.name
            ):
                # The schedule names another deployment since.
                run.task = envelope.task.name
                return ""
            if schedule.overlap_policy == Schedule.OVERLAP_POLICY_REPLACE:
                for earlier in await self._submitter.unended(_earlier(schedule)):
                    await self._submitter.cancel(earlier, f"replaced by {envelope.task.name}")
            self._leadership.fence()
            await self._submitter.store(envelope)
        except OutcomeError as error:
            return error.message
        except NotStoredError as error:
            log.warning("schedule.not_stored", schedule=key, task=run.task, error=str(error))
            if age_s < RETRY_S:
                return None
            return f"the queue has refused the task for {RETRY_S:.0f} s: {error}"
        run.task = envelope.task.name
        return ""

    async def _write(self, key: str, entry: KvEntry, schedule: Schedule) -> KvEntry:
        self._leadership.fence()
        value = schedule.SerializeToString(deterministic=True)
        return await self._mirror.put(KEY + key, value, entry.revision)


def _is_due(schedule: Schedule, now_s: float) -> bool:
    undecided_s = history.undecided_s(schedule)
    due_now = undecided_s is not None and undecided_s <= now_s
    return due_now or history.begun(schedule) is not None


def _earlier(schedule: Schedule) -> list[str]:
    """Names of the tasks that the schedule has submitted, as far as its runs are kept."""
    return [
        run.task for run in schedule.runs if run.task and run.action == ScheduleRun.ACTION_SUBMITTED
    ]
