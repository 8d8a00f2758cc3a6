"""`forebay tasks list`, `show`, `wait` and `result`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from forebay import addresses
from forebay.aio import AsyncClient
from forebay.cli.failure import FAILED, CliError
from forebay.cli.infer import plain_array
from forebay.cli.link import Where
from forebay.cli.output import Output, count_of, print_json, print_table, progress, say
from forebay.cli.tasks_words import labels_of, told
from forebay.inference import InferResult
from forebay.tasks import Attempt, TaskStatus

SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which tasks a command is about.

    Attributes:
        deployment: only of this one; None means all.
        states: only in one of these; none means any.
        batch: only of this one.
        labels: only with these, as KEY=VALUE.
    """

    deployment: str | None
    states: Sequence[str] = ()
    batch: str | None = None
    labels: Sequence[str] = field(default_factory=list)


async def list_tasks(
    chosen: Chosen, limit: int, tenant: str | None, where: Where, output: Output
) -> None:
    """Prints tasks.

    Raises:
        CliError: if they cannot be listed.
    """
    found: list[TaskStatus] = []
    is_cut = False
    labels = labels_of(chosen.labels)
    with told():
        async with client_of(where, tenant) as client:
            listed = client.tasks(
                chosen.deployment, states=chosen.states, batch=chosen.batch, labels=labels
            )
            async for status in listed:
                if len(found) == limit:
                    is_cut = True
                    break
                found.append(status)
    if output is Output.JSON:
        print_json([plain(status) for status in found])
    else:
        print_table(
            ("TASK", "STATE", "PRIORITY", "BATCH", "ATTEMPTS", "SUBMITTED", "ENDED", "ERROR"),
            [_row(status) for status in found],
            empty="no such task",
        )
    if is_cut:
        say(f"the first {limit}; --limit shows more")


async def show(name: str, tenant: str | None, where: Where, output: Output) -> None:
    """Prints one task.

    Raises:
        CliError: if there is none of that name.
    """
    with told():
        async with client_of(where, tenant) as client:
            status = await client.task(name).status()
    if output is Output.JSON:
        print_json(plain(status))
        return
    shown = {key: value for key, value in plain(status).items() if value not in (None, "", {}, [])}
    shown.pop("attempts", None)
    print_table(("", ""), [(key, _words(value)) for key, value in shown.items()])
    if status.attempts:
        print_table(
            ("\nATTEMPT ENDED", "\nTOOK", "\nREPLICA", "\nNODE", "\nOUTCOME", "\nERROR"),
            [_attempt_row(attempt) for attempt in status.attempts],
        )


async def wait(
    names: Sequence[str], timeout_s: float | None, tenant: str | None, where: Where, output: Output
) -> None:
    """Waits for tasks' ends and prints how they ended.

    Raises:
        CliError: if one did not succeed, or has not ended in time.
    """
    with told(), progress(f"waiting for {count_of(len(names), 'task')}") as tell:
        async with client_of(where, tenant) as client:

            async def one(name: str) -> TaskStatus:
                last = None
                async for last in client.task(name).updates(timeout_s):
                    tell(_progress_words(last))
                assert last is not None
                return last

            async with asyncio.TaskGroup() as group:
                waits = [group.create_task(one(name)) for name in names]
    ended = [task.result() for task in waits]
    if output is Output.JSON:
        print_json([plain(status) for status in ended])
    else:
        print_table(
            ("TASK", "STATE", "PRIORITY", "BATCH", "ATTEMPTS", "SUBMITTED", "ENDED", "ERROR"),
            [_row(status) for status in ended],
        )
    bad = [status for status in ended if status.state != SUCCEEDED]
    if bad:
        raise CliError(f"{len(bad)} of {count_of(len(ended), 'task')} did not succeed", FAILED)


async def result(
    name: str, timeout_s: float | None, tenant: str | None, where: Where, output: Output
) -> None:
    """Waits for a task's end and prints its result.

    Raises:
        CliError: if it has none.
    """
    with told(), progress(f"waiting for {name}"):
        async with client_of(where, tenant) as client:
            found = await client.task(name).result(timeout_s)
            values = outputs_of(found)
    if output is Output.JSON:
        print_json(values)
    else:
        print_table(("OUTPUT", "VALUE"), [(key, _words(value)) for key, value in values.items()])


def client_of(where: Where, tenant: str | None) -> AsyncClient:
    """A client for one command."""
    return AsyncClient(where.address(addresses.ROUTER), tenant)


def outputs_of(found: InferResult) -> dict[str, Any]:
    """The outputs of a task as JSON's types; of a function, what it returned."""
    from forebay.cli import function_inputs

    returned = function_inputs.returned(found)
    if returned is not None:
        return returned
    return {name: plain_array(array) for name, array in found.items()}


def plain(status: TaskStatus) -> dict[str, Any]:
    """A task as JSON's types."""
    return {each.name: _plain(getattr(status, each.name)) for each in fields(status)}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case tuple():
            return [_plain(item) for item in value]
        case Attempt():
            return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        case dict():
            return dict(value)
    return value


def _row(status: TaskStatus) -> tuple[str, ...]:
    batch = status.batch or ""
    if status.batch_index is not None:
        batch += f" {status.batch_index}"
    return (
        f"{status.deployment}/{status.id}",
        status.state,
        status.priority,
        batch,
        str(status.attempt_count),
        _clock(status.create_time),
        _clock(status.end_time),
        # Functions send their traceback after the first line; `show` has it all.
        status.error.partition("\n")[0],
    )


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    took = ""
    if attempt.start_time and attempt.end_time:
        took = f"{(attempt.end_time - attempt.start_time).total_seconds():.3f} s"
    return (
        _clock(attempt.end_time),
        took,
        attempt.replica_id,
        attempt.node,
        attempt.outcome,
        attempt.error,
    )


def _clock(instant: datetime | None) -> str:
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S") if instant else ""


def _progress_words(status: TaskStatus) -> str:
    words = f"{status.deployment}/{status.id} is {status.state}"
    if status.attempt_count:
        words += f" after {count_of(status.attempt_count, 'attempt')}"
    return words


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
