"""What a schedule may be: what a caller declares, what is kept, what is shown. Pure."""

import hashlib
from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.schedule_pb2 import Schedule
from forebay.v1.task_pb2 import Task
from services.autoscaler.schedules import history
from services.wire import cron, names
from services.wire.cron import Cron
from services.wire.names import quoted
from services.wire.status import invalid_argument

PREFIX = "schedules/"

MAX_REQUEST_BYTES = 256 * 1024
"""Every autoscaler holds every schedule in memory, and each slot writes it anew."""

MIN_RESULT_TTL_S = 600
"""For so long at least the task of a slot can be found: how a new leader tells that it was stored,
if the last one died in between."""

_DECLARED = (
    "when",
    "timezone",
    "request",
    "task",
    "missed_policy",
    "overlap_policy",
    "paused",
)
_OUTPUT_ONLY = ("next_time", "runs", "create_time", "update_time", "etag", "tenant")

_OPTIONS = (
    "priority",
    "batch",
    "labels",
    "max_retries",
    "min_backoff",
    "max_backoff",
    "attempt_timeout",
    "ttl",
    "result_ttl",
    "callback_url",
)


def schedule_id(name: str) -> str:
    """Last segment of a schedule's resource name `schedules/{schedule}`.

    Raises:
        StatusError: INVALID_ARGUMENT if `name` is not such a name.
    """
    if not name.startswith(PREFIX):
        raise invalid_argument(f"name: {quoted(name)} is not a schedule: write schedules/{{name}}")
    return checked_id(name.removeprefix(PREFIX), "name")


def checked_id(text: str, field: str) -> str:
    """`text` if it may be the last segment of a schedule's name.

    Raises:
        StatusError: INVALID_ARGUMENT if it may not.
    """
    try:
        return names.check_id(text, "schedule")
    except names.InvalidNameError as error:
        raise invalid_argument(f"{field}: {error}") from error


def declared(requested: Schedule) -> Schedule:
    """What a caller declares, checked, with defaults filled in and nothing else.

    Raises:
        StatusError: INVALID_ARGUMENT naming the field, its value and what is legal.
    """
    result = Schedule()
    _copy(result, requested, _DECLARED)
    _fill(result)
    _check(result)
    return result


def merged(current: Schedule, changes: Schedule, mask: FieldMask | None) -> Schedule:
    """`current` with the changes that a mask names, checked and filled like `declared`.

    Args:
        current: as kept.
        changes: the new values.
        mask: None for all populated fields, `*` for all fields.

    Raises:
        StatusError: INVALID_ARGUMENT for a path that cannot be updated or a value not legal.
    """
    result = Schedule()
    result.CopyFrom(current)
    if mask is None or not mask.paths:
        present = {field.name for field, _ in changes.ListFields()}
        _copy(result, changes, [field for field in _DECLARED if field in present])
    for path in mask.paths if mask is not None else ():
        if path == "*":
            _copy(result, changes, _DECLARED)
        elif path in _DECLARED:
            _copy(result, changes, [path])
        elif path in _OUTPUT_ONLY:
            raise invalid_argument(f"update_mask: {path} is set by the autoscaler")
        elif path == "name":
            raise invalid_argument("update_mask: name cannot be changed")
        else:
            raise invalid_argument(
                f"update_mask: a schedule has no field {quoted(path)} that can be updated; there "
                f"are *, {', '.join(_DECLARED)}"
            )
    _fill(result)
    _check(result)
    return result


def cron_of(schedule: Schedule) -> Cron:
    """When a schedule comes.

    Raises:
        StatusError: INVALID_ARGUMENT if its expression or its time zone is not legal.
    """
    try:
        cron.zone_of(schedule.timezone)
    except cron.CronError as error:
        raise invalid_argument(f"timezone: {error}") from error
    try:
        return cron.parse(schedule.when, schedule.timezone)
    except cron.CronError as error:
        raise invalid_argument(f"when: {error}") from error


def shown(name: str, tenant: str, kept: Schedule, now_s: float) -> Schedule:
    """A schedule as callers see it.

    Args:
        name: its last segment.
        tenant: whose it is.
        kept: as it is kept.
        now_s: seconds since the epoch: slots that have passed are not to come.
    """
    result = Schedule()
    result.CopyFrom(kept)
    result.name = PREFIX + name
    result.tenant = tenant
    result.etag = etag(kept)
    undecided_s = history.undecided_s(kept)
    if undecided_s is not None and undecided_s <= now_s:
        undecided_s = cron_of(kept).next_after(now_s)
    history.set_undecided(result, undecided_s)
    told = [run for run in kept.runs if run.action != history.BEGUN]
    result.ClearField("runs")
    result.runs.extend(told)
    return result


def etag(kept: Schedule) -> str:
    """Changes with what a call changes, and not with each slot."""
    stated = Schedule()
    _copy(stated, kept, (*_DECLARED, "create_time", "update_time"))
    return hashlib.sha256(stated.SerializeToString(deterministic=True)).hexdigest()[:16]


def same_declaration(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules declare the same."""
    first, second = Schedule(), Schedule()
    _copy(first, one, _DECLARED)
    _copy(second, other, _DECLARED)
    return first == second


def _copy(target: Schedule, source: Schedule, fields: Sequence[str]) -> None:
    present = {field.name for field, _ in source.ListFields()}
    for field in fields:
        target.ClearField(field)
        if field not in present:
            continue
        value = getattr(source, field)
        if hasattr(value, "CopyFrom"):
            getattr(target, field).CopyFrom(value)
        else:
            setattr(target, field, value)


def _fill(schedule: Schedule) -> None:
    schedule.missed_policy = schedule.missed_policy or Schedule.MISSED_POLICY_SKIP
    schedule.overlap_policy = schedule.overlap_policy or Schedule.OVERLAP_POLICY_SKIP


def _check(schedule: Schedule) -> None:
    cron_of(schedule)
    request = schedule.request
    try:
        names.check_id(request.model_name, "deployment")
    except names.InvalidNameError as error:
        raise invalid_argument(f"request.model_name: {error}") from error
    size_bytes = request.ByteSize()
    if size_bytes > MAX_REQUEST_BYTES:
        raise invalid_argument(
            f"request has {size_bytes} bytes: a schedule's may have {MAX_REQUEST_BYTES}; let the "
            "model read larger inputs from a volume"
        )
    for field, kind in (
        ("missed_policy", Schedule.MissedPolicy),
        ("overlap_policy", Schedule.OverlapPolicy),
    ):
        value = getattr(schedule, field)
        if value not in kind.values():
            legal = ", ".join(n for n, number in kind.items() if number)
            raise invalid_argument(f"{field} = {value}: it must be one of {legal}")
    _check_task(schedule.task)


def _check_task(task: Task) -> None:
    if task.idempotency_key:
        raise invalid_argument(
            f"task.idempotency_key = {quoted(task.idempotency_key)}: it must be empty, since each "
            "slot has a key of its own"
        )
    if task.HasField("batch_index"):
        raise invalid_argument(
            f"task.batch_index = {task.batch_index}: it must be unset, since all slots would have "
            "the same; task.batch alone is fine"
        )
    for field, _ in task.ListFields():
        if field.name not in _OPTIONS:
            raise invalid_argument(
                f"task.{field.name} cannot be set here: legal are {', '.join(_OPTIONS)}"
            )
    result_ttl_s = task.result_ttl.ToNanoseconds() / 1e9
    if task.HasField("result_ttl") and result_ttl_s < MIN_RESULT_TTL_S:
        raise invalid_argument(
            f"task.result_ttl = {result_ttl_s:g} s: of a schedule it must be {MIN_RESULT_TTL_S} s "
            "or more, since its task tells that a slot has fired"
        )
