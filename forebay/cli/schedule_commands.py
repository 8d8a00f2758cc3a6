"""What `forebay schedules …` does."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from forebay import addresses, schedules
from forebay.cli import function_inputs, infer
from forebay.cli.failure import FAILED, NOT_FOUND, USAGE, CliError
from forebay.cli.link import Where, link_to
from forebay.cli.output import Output, enum_word, print_json, print_table, say, to_plain
from forebay.errors import InvalidRequestError
from forebay.inference import build_request, tenant_metadata
from forebay.stubs import schedule_service
from forebay.task_client.options import task_of
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.schedule_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    RunScheduleRequest,
    Schedule,
    ScheduleRun,
    UpdateScheduleRequest,
)
from forebay.v1.task_pb2 import Task
from services.wire import cron

_PREFIX = "schedules/"
_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What the command line says about a schedule.

    Attributes:
        when, timezone, missed, overlap, paused: as in the API.
        file, inputs: what its tasks are about, as `forebay infer` takes it; one of the two.
        labels: of its tasks, `KEY=VALUE` each.
        task: further options of its tasks.
    """

    when: str
    timezone: str = ""
    file: Path | None = None
    inputs: Sequence[str] = ()
    missed: str = "skip"
    overlap: str = "skip"
    paused: bool = False
    labels: Sequence[str] = ()
    task: dict[str, Any] = field(default_factory=dict)


async def create(
    name: str,
    deployment: str,
    options: CreateOptions,
    where: Where,
    tenant: str | None,
    output: Output,
) -> None:
    """Creates a schedule.

    Raises:
        CliError: if it cannot be created.
    """
    try:
        spec = schedules.ScheduleSpec(
            options.when, options.timezone, options.missed, options.overlap, name
        )
        task = task_of(**options.task, labels=_labels(options.labels))
    except InvalidRequestError as error:
        raise CliError(str(error), USAGE) from None
    request = await _request(deployment, options, where)
    schedule = schedules.schedule_of(spec, request, task)
    schedule.paused = options.paused
    made = CreateScheduleRequest(schedule_id=name, schedule=schedule)
    async with _calls(where, tenant) as call:
        answer = await call("CreateSchedule", made)
    _print(answer.schedule, output, f"created {name}")


async def list_all(where: Where, tenant: str | None, output: Output) -> None:
    """Prints all schedules."""
    found: list[Schedule] = []
    async with _calls(where, tenant) as call:
        token = ""
        while True:
            request = ListSchedulesRequest(page_size=_PAGE_SIZE, page_token=token)
            page = await call("ListSchedules", request)
            found += page.schedules
            token = page.next_page_token
            if not token:
                break
    if output is Output.JSON:
        print_json([_plain(schedule) for schedule in found])
        return
    print_table(
        ("NAME", "DEPLOYMENT", "WHEN", "TIME ZONE", "NEXT", "LAST RUN", "NOTE"),
        [_row(schedule) for schedule in found],
        empty="there is no schedule: make one with `forebay schedules create`",
    )


async def show(name: str, where: Where, tenant: str | None, output: Output) -> None:
    """Prints one schedule with its runs.

    Raises:
        CliError: if there is none of that name.
    """
    async with _calls(where, tenant) as call:
        answer = await call("GetSchedule", GetScheduleRequest(name=_PREFIX + name), name)
    schedule = answer.schedule
    if output is Output.JSON:
        print_json(_plain(schedule))
        return
    print_table(("", ""), _facts(schedule))
    print_table(
        ("\nSLOT", "\nDECIDED", "\nWHAT", "\nTASK", "\nNOTE"),
        [_run_row(schedule, run) for run in schedule.runs],
        empty="it has not run yet",
    )


async def set_paused(
    name: str, paused: bool, where: Where, tenant: str | None, output: Output
) -> None:
    """Pauses or resumes a schedule.

    Raises:
        CliError: if there is none of that name.
    """
    request = UpdateScheduleRequest(
        schedule=Schedule(name=_PREFIX + name, paused=paused),
        update_mask=FieldMask(paths=["paused"]),
    )
    async with _calls(where, tenant) as call:
        answer = await call("UpdateSchedule", request, name)
    _print(answer.schedule, output, f"{name} is {'paused' if paused else 'resumed'}")


async def delete(name: str, where: Where, tenant: str | None, output: Output) -> None:
    """Removes a schedule.

    Raises:
        CliError: if there is none of that name.
    """
    async with _calls(where, tenant) as call:
        await call("DeleteSchedule", DeleteScheduleRequest(name=_PREFIX + name), name)
    if output is Output.JSON:
        print_json({"name": _PREFIX + name, "deleted": True})
    else:
        say(f"deleted {name}; tasks it has submitted go on")


async def run_now(name: str, where: Where, tenant: str | None, output: Output) -> None:
    """Submits the task of a schedule now.

    Raises:
        CliError: if there is none of that name, or the task could not be submitted.
    """
    async with _calls(where, tenant) as call:
        answer = await call("RunSchedule", RunScheduleRequest(name=_PREFIX + name), name)
    run = answer.run
    if output is Output.JSON:
        print_json(to_plain(run))
    elif run.task:
        print_table(("TASK",), [(run.task,)])
    if run.action != ScheduleRun.ACTION_SUBMITTED:
        raise CliError(f"{name} was not run: {run.message}", FAILED)


async def _request(deployment: str, options: CreateOptions, where: Where) -> InferRequest:
    """The inference of each task."""
    metadata = await infer.model_metadata(deployment, where, None)
    # A function may have no argument.
    none = options.file is None and not options.inputs
    both = options.file is not None and options.inputs
    if both or (none and not function_inputs.is_function(metadata)):
        raise CliError("name a file, or inputs with --input NAME=VALUE: one of the two", USAGE)
    job = infer.one_job(metadata, options.file, options.inputs)
    try:
        return build_request(deployment, job.inputs, None, None, "")
    except InvalidRequestError as error:
        raise CliError(str(error), USAGE) from None


class _Call(Protocol):
    """Calls a method of ScheduleService; `schedule` is what it is about."""

    async def __call__(self, method: str, request: Any, schedule: str = "") -> Any: ...


@asynccontextmanager
async def _calls(where: Where, tenant: str | None) -> AsyncIterator[_Call]:
    """What calls the autoscaler in the name of a tenant."""
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        service = schedule_service(autoscaler.channel)

        async def call(method: str, request: Any, schedule: str = "") -> Any:
            named = partial(getattr(service, method), metadata=tenant_metadata(tenant))
            try:
                return await autoscaler.call(named, request)
            except CliError as error:
                if error.exit_code != NOT_FOUND or not schedule:
                    raise
                raise CliError(
                    f"there is no schedule {schedule}. `forebay schedules list` shows those there "
                    "are.",
                    NOT_FOUND,
                ) from None

        yield call


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for word in given:
        key, separator, value = word.partition("=")
        if not separator:
            raise CliError(f"--label {word!r}: write KEY=VALUE", USAGE)
        labels[key] = value
    return labels


def _print(schedule: Schedule, output: Output, message: str) -> None:
    if output is Output.JSON:
        print_json(_plain(schedule))
        return
    coming = "" if schedule.paused else f"; next: {_clock(schedule, schedule.next_time)}"
    say(f"{message}{coming}")


def _plain(schedule: Schedule) -> dict[str, Any]:
    """As JSON's types; of the request only what can be read."""
    options = Task()
    options.CopyFrom(schedule.task)
    plain = to_plain(schedule)
    set_options = {descriptor.name for descriptor, _ in options.ListFields()}
    plain["request"] = {
        "model_name": schedule.request.model_name,
        "inputs": [each.name for each in schedule.request.inputs],
        "size_bytes": schedule.request.ByteSize(),
    }
    plain["task"] = {
        key: value
        for key, value in to_plain(options).items()
        if key.removesuffix("_s") in set_options or key in set_options
    }
    return plain


def _facts(schedule: Schedule) -> list[tuple[str, str]]:
    inputs = ", ".join(each.name for each in schedule.request.inputs) or "none"
    return [
        ("name", schedule.name.removeprefix(_PREFIX)),
        ("deployment", schedule.request.model_name),
        ("inputs", f"{inputs} ({schedule.request.ByteSize()} bytes)"),
        ("when", schedule.when),
        ("time zone", schedule.timezone or "UTC"),
        ("next", "paused" if schedule.paused else _clock(schedule, schedule.next_time)),
        ("missed slots", _policy("MissedPolicy", schedule.missed_policy)),
        ("overlapping slots", _policy("OverlapPolicy", schedule.overlap_policy)),
        ("tenant", schedule.tenant),
    ]


def _policy(kind: str, value: int) -> str:
    number = getattr(Schedule, kind).Name(value)
    return str(number).rpartition("POLICY_")[2].lower().replace("_", "-")


def _row(schedule: Schedule) -> tuple[str, ...]:
    last = schedule.runs[0] if schedule.runs else None
    return (
        schedule.name.removeprefix(_PREFIX),
        schedule.request.model_name,
        schedule.when,
        schedule.timezone or "UTC",
        "paused" if schedule.paused else _clock(schedule, schedule.next_time),
        f"{_clock(schedule, last.fire_time)} {_action(last)}" if last else "never",
        last.message if last else "",
    )


def _run_row(schedule: Schedule, run: ScheduleRun) -> tuple[str, ...]:
    return (
        _clock(schedule, run.slot_time) if run.HasField("slot_time") else "by hand",
        _clock(schedule, run.fire_time),
        _action(run),
        run.task,
        run.message,
    )


def _action(run: ScheduleRun) -> str:
    return enum_word("Action", ScheduleRun.Action.Name(run.action)).replace("_", " ")


def _clock(schedule: Schedule, instant: Timestamp) -> str:
    """An instant as clocks in the schedule's time zone show it."""
    if not instant.seconds:
        return "never"
    try:
        zone = cron.zone_of(schedule.timezone)
    except cron.CronError:
        zone = cron.zone_of("")
    return datetime.fromtimestamp(instant.seconds, zone).strftime("%Y-%m-%d %H:%M %Z")
