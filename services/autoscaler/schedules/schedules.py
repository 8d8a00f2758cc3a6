"""Schedules as they are kept: each change is one compare-and-set of one key."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import grpc
import nats.js.errors
import structlog
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.envelope_pb2 import OUTCOME_NOT_FOUND
from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from services.autoscaler.schedules import due, history, rules
from services.autoscaler.schedules.submitter import Submitter
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvEntry, KvMirror
from services.wire.names import quoted
from services.wire.outcomes import STATUS, OutcomeError
from services.wire.status import StatusError
from services.wire.stored_publisher import NotStoredError

log = structlog.get_logger()

KEY = "schedule."
MAX_SCHEDULES = 1000
WRITE_ATTEMPTS = 5


def key_of(tenant: str, name: str) -> str:
    """Where a schedule is kept, after KEY; each tenant has names of its own."""
    return f"{tenant}.{name}"


def split_key(key: str) -> tuple[str, str]:
    """Tenant and name of what `key_of` made."""
    tenant, _, name = key.partition(".")
    return tenant, name


def slot_key(name: str, slot_s: int) -> str:
    """Idempotency key of the task of a slot: the same slot makes the same task."""
    return f"schedule/{name}/{slot_s}"


class Schedules:
    """Creates, reads, changes, deletes and runs schedules, on the leader and on standbys alike."""

    def __init__(self, mirror: KvMirror, submitter: Submitter, clock: Clock) -> None:
        """Over the mirror of the bucket of schedules.

        Args:
            mirror: of the bucket.
            submitter: of tasks.
            clock: says when something was changed, and which slots are to come.
        """
        self._mirror = mirror
        self._submitter = submitter
        self._clock = clock

    async def create(
        self, tenant: str, name: str, requested: Schedule, validate_only: bool
    ) -> Schedule:
        """Creates a schedule.

        Args:
            tenant: whose tasks it submits.
            name: last segment of its name.
            requested: what is declared.
            validate_only: changes nothing.

        Raises:
            StatusError: INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION (no such deployment)
                or RESOURCE_EXHAUSTED (too many).
            nats.errors.Error: if NATS cannot be reached.
        """
        self._check_known()
        rules.checked_id(name, "schedule_id")
        schedule = rules.declared(requested)
        await self._check_submits(schedule, tenant)
        key = KEY + key_of(tenant, name)
        if self._mirror.get(key) is not None:
            _already_exists(name)
        if len(self._mirror.entries(KEY)) >= MAX_SCHEDULES:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are {MAX_SCHEDULES} schedules: delete one first",
            )
        now_s = self._clock.wall_s()
        self._renew_mark(schedule, now_s)
        schedule.create_time.FromNanoseconds(int(now_s * 1e9))
        schedule.update_time.FromNanoseconds(int(now_s * 1e9))
        if not validate_only:
            try:
                await self._mirror.put(key, _stored(schedule), 0)
            except nats.js.errors.KeyWrongLastSequenceError:
                _already_exists(name)
            log.info("schedule.created", schedule=name, tenant=tenant)
        return rules.shown(name, tenant, schedule, now_s)

    def get(self, tenant: str, full_name: str) -> Schedule:
        """Returns a schedule.

        Raises:
            StatusError: INVALID_ARGUMENT or NOT_FOUND.
        """
        name, entry = self._find(tenant, full_name)
        return rules.shown(name, tenant, Schedule.FromString(entry.value), self._clock.wall_s())

    def list_all(self, tenant: str) -> list[Schedule]:
        """All schedules of a tenant, by name."""
        self._check_known()
        now_s = self._clock.wall_s()
        entries = self._mirror.entries(KEY + key_of(tenant, ""))
        return [
            rules.shown(name, tenant, Schedule.FromString(entries[name].value), now_s)
            for name in sorted(entries)
        ]

    async def update(self, tenant: str, requested: Schedule, mask: FieldMask | None) -> Schedule:
        """Changes a schedule.

        Slots that passed while it was paused, or before its expression was changed, do not come
        any more.

        Raises:
            StatusError: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION (no such deployment) or
                ABORTED (stale etag, or others keep changing it).
            nats.errors.Error: if NATS cannot be reached.
        """

        async def change(current: Schedule) -> Schedule:
            _check_etag(requested.etag, current)
            changed = rules.merged(current, requested, mask)
            if rules.same_declaration(current, changed):
                return current
            if changed.request != current.request or changed.task != current.task:
                await self._check_submits(changed, tenant)
            now_s = self._clock.wall_s()
            comes_as_before = (changed.when, changed.timezone, changed.paused) == (
                current.when,
                current.timezone,
                current.paused,
            )
            if not comes_as_before:
                self._renew_mark(changed, now_s)
            changed.update_time.FromNanoseconds(int(now_s * 1e9))
            return changed

        name, schedule = await self._change(tenant, requested.name, change)
        log.info("schedule.updated", schedule=name, tenant=tenant)
        return rules.shown(name, tenant, schedule, self._clock.wall_s())

    async def delete(self, tenant: str, full_name: str, etag: str) -> None:
        """Deletes a schedule; tasks it has submitted go on.

        Raises:
            StatusError: INVALID_ARGUMENT, NOT_FOUND or ABORTED (stale etag).
            nats.errors.Error: if NATS cannot be reached.
        """
        for _ in range(WRITE_ATTEMPTS):
            name, entry = self._find(tenant, full_name)
            _check_etag(etag, Schedule.FromString(entry.value))
            try:
                await self._mirror.delete(KEY + key_of(tenant, name))
            except nats.js.errors.KeyWrongLastSequenceError:
                await self._refresh(tenant, name, entry)
                continue
            log.info("schedule.deleted", schedule=name, tenant=tenant)
            return
        raise _contended(full_name)

    async def run(self, tenant: str, full_name: str) -> ScheduleRun:
        """Fires a schedule now, beside its slots, whatever its policies and also if it is paused.

        Raises:
            StatusError: INVALID_ARGUMENT or NOT_FOUND.
            nats.errors.Error: if NATS cannot be reached; a task may have been submitted.
        """
        _, entry = self._find(tenant, full_name)
        schedule = Schedule.FromString(entry.value)
        now_s = self._clock.wall_s()
        try:
            envelope = await self._submitter.envelope(schedule, tenant)
            await self._submitter.store(envelope)
        except (OutcomeError, NotStoredError) as error:
            failed = ScheduleRun.ACTION_FAILED
            run = history.run_of(None, now_s, failed, message=_reason(error))
        else:
            submitted = ScheduleRun.ACTION_SUBMITTED
            run = history.run_of(None, now_s, submitted, task=envelope.task.name)

        async def note(current: Schedule) -> Schedule:
            noted = Schedule()
            noted.CopyFrom(current)
            history.add(noted, run)
            return noted

        try:
            await self._change(tenant, full_name, note)
        except StatusError as error:
            # What has run has run, whatever became of the schedule meanwhile.
            log.warning("schedule.run_not_noted", schedule=full_name, reason=str(error))
        log.info("schedule.run_by_hand", schedule=full_name, task=run.task, failure=run.message)
        return run

    async def _change(
        self, tenant: str, full_name: str, change: Callable[[Schedule], Awaitable[Schedule]]
    ) -> tuple[str, Schedule]:
        for _ in range(WRITE_ATTEMPTS):
            name, entry = self._find(tenant, full_name)
            current = Schedule.FromString(entry.value)
            changed = await change(current)
            if changed is current:
                return name, current
            key = KEY + key_of(tenant, name)
            try:
                await self._mirror.put(key, _stored(changed), entry.revision)
            except nats.js.errors.KeyWrongLastSequenceError:
                await self._refresh(tenant, name, entry)
                continue
            return name, changed
        raise _contended(full_name)

    def _find(self, tenant: str, full_name: str) -> tuple[str, KvEntry]:
        self._check_known()
        name = rules.schedule_id(full_name)
        entry = self._mirror.get(KEY + key_of(tenant, name))
        if entry is None:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"there is no schedule {name}")
        return name, entry

    async def _refresh(self, tenant: str, name: str, stale: KvEntry) -> None:
        """Sees to it that the next attempt is based on what beat this one."""
        if self._mirror.get(KEY + key_of(tenant, name)) == stale:
            await self._mirror.reload()

    def _check_known(self) -> None:
        if not self._mirror.known:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE, "schedules are not known yet: NATS does not answer"
            )

    async def _check_submits(self, schedule: Schedule, tenant: str) -> None:
        try:
            await self._submitter.envelope(schedule, tenant, slot_key("", 0))
        except OutcomeError as error:
            if error.outcome == OUTCOME_NOT_FOUND:
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"request.model_name: {error.message}; deploy it first",
                ) from error
            raise StatusError(STATUS[error.outcome], error.message) from error

    def _renew_mark(self, schedule: Schedule, now_s: float) -> None:
        """What comes from now on is to be decided, and nothing before it."""
        if schedule.paused:
            history.set_undecided(schedule, None)
            return
        decided_s = history.decided_s(schedule)
        following_s = due.next_undecided_s(rules.cron_of(schedule), now_s, decided_s)
        history.set_undecided(schedule, following_s)


def _stored(schedule: Schedule) -> bytes:
    return bytes(schedule.SerializeToString(deterministic=True))


def _reason(error: OutcomeError | NotStoredError) -> str:
    if isinstance(error, OutcomeError):
        return error.message
    return f"the queue has refused the task: {error}"


def _check_etag(etag: str, current: Schedule) -> None:
    if etag and etag != rules.etag(current):
        raise StatusError(
            grpc.StatusCode.ABORTED,
            f"etag = {quoted(etag)} is stale: the schedule has changed; read it again",
        )


def _already_exists(name: str) -> NoReturn:
    raise StatusError(
        grpc.StatusCode.ALREADY_EXISTS,
        f"there is a schedule {name} already: update it, or choose another name",
    )


def _contended(full_name: str) -> StatusError:
    return StatusError(
        grpc.StatusCode.ABORTED, f"others keep changing {full_name}: read it, try again"
    )
