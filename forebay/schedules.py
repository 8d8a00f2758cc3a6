"""Schedules from Python: the decorator that has a function run by the clock.

    @forebay.schedule(when="0 2 * * *", timezone="Europe/Berlin")
    @forebay.function(requirements=["magika"])
    def nightly(): ...

Deploying the function creates or updates its schedule; without the decorator it removes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.errors import InvalidRequestError
from forebay.inference import tenant_metadata
from forebay.stubs import schedule_service
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.schedule_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    Schedule,
    UpdateScheduleRequest,
)
from forebay.v1.task_pb2 import Task
from services.wire import cron, names

F = TypeVar("F")

MISSED = {
    "skip": Schedule.MISSED_POLICY_SKIP,
    "run-once": Schedule.MISSED_POLICY_RUN_ONCE,
}
OVERLAP = {
    "skip": Schedule.OVERLAP_POLICY_SKIP,
    "allow": Schedule.OVERLAP_POLICY_ALLOW,
    "replace": Schedule.OVERLAP_POLICY_REPLACE,
}

LABEL = "forebay-schedule"
"""Label of the tasks of schedules that a decorator made; its value is the deployment."""

CALL_TIMEOUT_S = 15.0
_PAGE_SIZE = 1000


class ScheduleError(InvalidRequestError, ValueError):
    """A schedule that cannot be; the text says why and what is legal."""


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When a function runs by itself.

    Attributes:
        when: cron expression of five fields.
        timezone: IANA name of its time zone; empty means UTC.
        missed: what becomes of slots that nobody fired within a minute: `skip` or `run-once`.
        overlap: what becomes of a slot while the task of an earlier one has not ended: `skip`,
            `allow` or `replace`.
        name: of the schedule; None means the deployment's.
        argument: what the function is called with; None means without arguments.
    """

    when: str
    timezone: str = ""
    missed: str = "skip"
    overlap: str = "skip"
    name: str | None = None
    argument: Any = None

    def __post_init__(self) -> None:
        """Checks what can be checked here.

        Raises:
            ScheduleError: naming the field, its value and what is legal.
        """
        try:
            field = "timezone"
            cron.zone_of(self.timezone)
            field = "when"
            cron.parse(self.when, self.timezone)
        except cron.CronError as error:
            raise ScheduleError(f"schedule: {field}: {error}") from None
        _word("missed", self.missed, MISSED)
        _word("overlap", self.overlap, OVERLAP)
        if self.name is not None and not names.is_id(self.name):
            raise ScheduleError(
                f"schedule: name = {names.quoted(self.name)}; legal are 1 to 63 of a-z, 0-9 and "
                "'-', starting with a letter and not ending with '-'"
            )


def schedule(
    when: str,
    timezone: str = "",
    *,
    missed: str = "skip",
    overlap: str = "skip",
    name: str | None = None,
    argument: Any = None,
) -> Callable[[F], F]:
    """Has a function run by the clock once it is deployed: put it above `@forebay.function`.

    Args:
        when: cron expression of five fields: minute, hour, day of month, month, day of week.
        timezone: IANA name of its time zone; empty means UTC.
        missed: what becomes of slots that nobody fired within a minute, such as while the mesh was
            down: `skip`, or `run-once` for one task, however many were missed.
        overlap: what becomes of a slot while the task of an earlier one has not ended: `skip` it,
            `allow` one more, or `replace` the earlier one, which is cancelled.
        name: of the schedule; None means the deployment's.
        argument: what the function is called with; None means without arguments.

    Raises:
        ScheduleError: if the expression, the time zone or a word is not legal.
    """
    spec = ScheduleSpec(when, timezone, missed, overlap, name, argument)

    def mark(function: F) -> F:
        function.schedule = spec  # type: ignore[attr-defined]
        return function

    return mark


def schedule_of(spec: ScheduleSpec, request: InferRequest, task: Task | None = None) -> Schedule:
    """The schedule that a specification means.

    Args:
        spec: when, and what becomes of what cannot run then.
        request: the inference.
        task: options of its tasks.
    """
    return Schedule(
        when=spec.when,
        timezone=spec.timezone,
        missed_policy=MISSED[spec.missed],
        overlap_policy=OVERLAP[spec.overlap],
        request=request,
        task=task,
    )


async def declare(
    spec: ScheduleSpec | None,
    deployment: str,
    request: InferRequest | None,
    channel: grpc.aio.Channel,
    task: Task | None = None,
    tenant: str | None = None,
) -> str:
    """Makes a deployment's schedule what its decorator says.

    Those that an earlier decorator of the deployment made under other names are removed. Whether a
    schedule is paused stays as it is.

    Args:
        spec: what the decorator says; None if there is none.
        deployment: its id; it must be there.
        request: the inference; not needed without a decorator.
        channel: to the autoscaler.
        task: options of its tasks.
        tenant: whom it speaks for; None leaves it to the autoscaler.

    Returns:
        `created`, `updated`, `unchanged`, `removed`, or nothing if there was none and is none.

    Raises:
        ScheduleError: if another schedule has the name.
        grpc.aio.AioRpcError: if the autoscaler does not take it.
    """
    service = schedule_service(channel)
    called: dict[str, Any] = {"timeout": CALL_TIMEOUT_S, "metadata": tenant_metadata(tenant)}
    name = "" if spec is None else spec.name or deployment
    outcome = ""
    if spec is not None and request is not None:
        outcome = await _make(service, spec, name, deployment, request, task, called)
    for other in await _made_before(service, deployment, called):
        if other.name != f"schedules/{name}":
            await service.DeleteSchedule(DeleteScheduleRequest(name=other.name), **called)
            outcome = outcome or "removed"
    return outcome


async def _make(
    service: Any,
    spec: ScheduleSpec,
    name: str,
    deployment: str,
    request: InferRequest,
    task: Task | None,
    called: dict[str, Any],
) -> str:
    """Creates or updates a schedule; returns which of the two."""
    options = Task()
    options.CopyFrom(task or Task())
    options.labels[LABEL] = deployment
    wanted = schedule_of(spec, request, options)
    found = await _found(service, name, called)
    if found is None:
        create = CreateScheduleRequest(schedule_id=name, schedule=wanted)
        await service.CreateSchedule(create, **called)
        return "created"
    if found.task.labels.get(LABEL) != deployment:
        raise ScheduleError(
            f"there is a schedule {name} already that the decorator of {deployment} did not make: "
            "give another name, @forebay.schedule(name=...), or delete it with "
            f"`forebay schedules delete {name}`"
        )
    wanted.name, wanted.etag = found.name, found.etag
    fields = ["when", "timezone", "request", "task", "missed_policy", "overlap_policy"]
    update = UpdateScheduleRequest(schedule=wanted, update_mask=FieldMask(paths=fields))
    answer = await service.UpdateSchedule(update, **called)
    return "unchanged" if answer.schedule.update_time == found.update_time else "updated"


async def _found(service: Any, name: str, called: dict[str, Any]) -> Schedule | None:
    try:
        answer = await service.GetSchedule(GetScheduleRequest(name=f"schedules/{name}"), **called)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    schedule: Schedule = answer.schedule
    return schedule


async def _made_before(service: Any, deployment: str, called: dict[str, Any]) -> list[Schedule]:
    """The schedules that decorators of a deployment have made."""
    found: list[Schedule] = []
    token = ""
    while True:
        request = ListSchedulesRequest(page_size=_PAGE_SIZE, page_token=token)
        page = await service.ListSchedules(request, **called)
        found += [each for each in page.schedules if each.task.labels.get(LABEL) == deployment]
        token = page.next_page_token
        if not token:
            return found


def _word(field: str, value: str, legal: dict[str, Any]) -> None:
    if value not in legal:
        raise ScheduleError(f"schedule: {field} = {value!r}; legal are {', '.join(legal)}")
