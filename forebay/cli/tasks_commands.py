"""`forebay tasks …`, as it is said on the command line."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from forebay.cli import tasks_options
from forebay.cli.options import NameArgument, OutputOption, RouterOption, StateDirOption
from forebay.cli.output import Output
from forebay.cli.running import run, where_of
from forebay.cli.tasks_options import TenantOption

app = typer.Typer(
    help="Submit tasks, follow them, fetch their results.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class TaskState(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="A task: DEPLOYMENT/TASK or deployments/…/tasks/….",
        show_default=False,
    ),
]
TasksArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="TASK...",
        help="Tasks: DEPLOYMENT/TASK or deployments/…/tasks/….",
        show_default=False,
    ),
]
StatesOption = Annotated[
    list[TaskState] | None,
    typer.Option("--state", "-s", help="Only in this state. Repeatable."),
]
BatchOption = Annotated[str | None, typer.Option(metavar="ID", help="Only of this batch.")]
TimeoutOption = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds to wait. Default: for ever.")
]


def register(parent: typer.Typer) -> None:
    """Adds the commands."""
    parent.add_typer(app, name="tasks")


@app.command("list")
def list_tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A deployment; all if left out.")
    ] = None,
    states: StatesOption = None,
    batch: BatchOption = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only with it. Repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Tasks at most.")] = 100,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List tasks: waiting and running ones first, each kind oldest first."""
    from forebay.cli import tasks_show as command

    chosen = command.Chosen(name, [state.value for state in states or ()], batch, labels or [])
    where = where_of(router=router, state_dir=state_dir)
    run(command.list_tasks(chosen, limit, tenant, where, output))


@app.command()
def show(
    task: TaskArgument,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a task: its state, its times, and how its attempts ended."""
    from forebay.cli import tasks_show as command

    where = where_of(router=router, state_dir=state_dir)
    run(command.show(task, tenant, where, output))


@app.command()
def wait(
    tasks: TasksArgument,
    timeout_s: TimeoutOption = None,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Wait until tasks have ended; exit code 1 if one of them did not succeed."""
    from forebay.cli import tasks_show as command

    where = where_of(router=router, state_dir=state_dir)
    run(command.wait(tasks, timeout_s, tenant, where, output))


@app.command()
def result(
    task: TaskArgument,
    timeout_s: TimeoutOption = None,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Wait for a task's end and print its result."""
    from forebay.cli import tasks_show as command

    where = where_of(router=router, state_dir=state_dir)
    run(command.result(task, timeout_s, tenant, where, output))


@app.command()
def cancel(
    tasks: TasksArgument,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """End tasks that have not ended; what they answer is dropped."""
    from forebay.cli import tasks_change as command

    where = where_of(router=router, state_dir=state_dir)
    run(command.cancel(tasks, tenant, where, output))


@app.command()
def retry(
    tasks: TasksArgument,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit failed tasks again, with the same inputs, as new ones."""
    from forebay.cli import tasks_change as command

    where = where_of(router=router, state_dir=state_dir)
    run(command.retry(tasks, tenant, where, output))


@app.command()
def purge(
    name: NameArgument,
    states: StatesOption = None,
    batch: BatchOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many it would be.")
    ] = False,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget tasks that have ended, or those in the states named, with their results.

    Tasks that wait or run are cancelled first, if their state is named.
    """
    from forebay.cli import tasks_change as command

    chosen = command.Chosen(name, [state.value for state in states or ()], batch)
    where = where_of(router=router, state_dir=state_dir)
    run(command.purge(chosen, dry_run, tenant, where, output))


@app.command()
def submit(
    name: NameArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]...", help="Files, for a model with one BYTES input."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="An input: a JSON array such as X='[[1, 2]]', or X=@file.npy. Repeatable.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the results and print them.")
    ] = False,
    batch: Annotated[
        str | None, typer.Option(metavar="ID", help="The batch the tasks belong to.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Submitting again with the same key returns the first task."),
    ] = None,
    priority: tasks_options.PriorityOption = tasks_options.Priority.NORMAL,
    labels: tasks_options.LabelsOption = None,
    max_retries: tasks_options.MaxRetriesOption = None,
    min_backoff_s: tasks_options.MinBackoffOption = None,
    attempt_timeout_s: tasks_options.AttemptTimeoutOption = None,
    ttl_s: tasks_options.TtlOption = None,
    result_ttl_s: tasks_options.ResultTtlOption = None,
    callback_url: tasks_options.CallbackOption = None,
    tenant: TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit tasks, one for each file, and print their names."""
    from forebay.cli import tasks_submit as command
    from forebay.cli.running import failures
    from forebay.cli.tasks_words import task_options

    with failures():
        options = task_options(
            priority,
            labels,
            max_retries,
            min_backoff_s,
            attempt_timeout_s,
            ttl_s,
            result_ttl_s,
            callback_url,
        )
    asked = command.Asked(files or [], inputs or [], batch, idempotency_key, wait, options)
    where = where_of(router=router, state_dir=state_dir)
    run(command.submit(name, asked, tenant, where, output))
