"""`forebay schedules …`: tasks by the clock, as they are said on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from forebay.cli.options import (
    AutoscalerOption,
    OutputOption,
    RouterOption,
    StateDirOption,
)
from forebay.cli.output import Output
from forebay.cli.running import run, where_of

_TASKS = "What its tasks are like"

app = typer.Typer(
    help="Submit tasks by the clock.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScheduleArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the schedule.", show_default=False)
]


def register(parent: typer.Typer) -> None:
    """Adds the commands."""
    parent.add_typer(app, name="schedules")


@app.command()
def create(
    name: ScheduleArgument,
    deployment: Annotated[
        str, typer.Argument(metavar="DEPLOYMENT", help="The deployment that runs its tasks.")
    ],
    when: Annotated[
        str,
        typer.Option(
            metavar="CRON",
            help="Five fields: minute, hour, day of month, month, day of week. '0 2 * * *' is "
            "every day at 2:00.",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A file, for a model with one BYTES input."),
    ] = None,
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="IANA name, such as Europe/Berlin. Default: UTC.")
    ] = "",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="An input: a JSON array such as X='[[1, 2]]', or X=@file.npy. Repeatable.",
        ),
    ] = None,
    missed: Annotated[
        str,
        typer.Option(
            metavar="skip|run-once",
            help="What becomes of slots that nobody fired within a minute.",
        ),
    ] = "skip",
    overlap: Annotated[
        str,
        typer.Option(
            metavar="skip|allow|replace",
            help="What becomes of a slot while an earlier task has not ended.",
        ),
    ] = "skip",
    paused: Annotated[bool, typer.Option("--paused", help="Let slots pass for now.")] = False,
    priority: Annotated[
        str,
        typer.Option(
            metavar="high|normal|low",
            help="Which waiting tasks come first.",
            rich_help_panel=_TASKS,
        ),
    ] = "normal",
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="To list tasks by. Repeatable.", rich_help_panel=_TASKS
        ),
    ] = None,
    max_retries: Annotated[
        int | None,
        typer.Option(help="Attempts after the first. Default: 3.", rich_help_panel=_TASKS),
    ] = None,
    attempt_timeout_s: Annotated[
        float | None,
        typer.Option(help="Seconds one attempt may take.", rich_help_panel=_TASKS),
    ] = None,
    ttl_s: Annotated[
        float | None,
        typer.Option(help="Seconds within which a task must have ended.", rich_help_panel=_TASKS),
    ] = None,
    result_ttl_s: Annotated[
        float | None,
        typer.Option(help="Seconds for which its result is kept.", rich_help_panel=_TASKS),
    ] = None,
    callback_url: Annotated[
        str | None, typer.Option(help="Where a task's end is posted.", rich_help_panel=_TASKS)
    ] = None,
    router: RouterOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit a task to a deployment at every slot of a cron expression."""
    from forebay.cli import schedule_commands as command

    options = command.CreateOptions(
        when=when,
        timezone=timezone,
        file=file,
        inputs=tuple(inputs or ()),
        missed=missed,
        overlap=overlap,
        paused=paused,
        labels=tuple(label or ()),
        task={
            "priority": priority,
            "max_retries": max_retries,
            "attempt_timeout_s": attempt_timeout_s,
            "ttl_s": ttl_s,
            "result_ttl_s": result_ttl_s,
            "callback_url": callback_url,
        },
    )
    where = where_of(router=router, autoscaler=autoscaler, state_dir=state_dir)
    run(command.create(name, deployment, options, where, output))


@app.command("list")
def list_all(
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List schedules with their next slot and what became of the last."""
    from forebay.cli import schedule_commands as command

    run(command.list_all(where_of(autoscaler=autoscaler, state_dir=state_dir), output))


@app.command()
def show(
    name: ScheduleArgument,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a schedule and its last runs."""
    from forebay.cli import schedule_commands as command

    run(command.show(name, where_of(autoscaler=autoscaler, state_dir=state_dir), output))


@app.command()
def pause(
    name: ScheduleArgument,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let slots pass without a task, until it is resumed."""
    from forebay.cli import schedule_commands as command

    where = where_of(autoscaler=autoscaler, state_dir=state_dir)
    run(command.set_paused(name, True, where, output))


@app.command()
def resume(
    name: ScheduleArgument,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Fire slots again, from the next one on."""
    from forebay.cli import schedule_commands as command

    where = where_of(autoscaler=autoscaler, state_dir=state_dir)
    run(command.set_paused(name, False, where, output))


@app.command()
def delete(
    name: ScheduleArgument,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove a schedule; tasks it has submitted go on."""
    from forebay.cli import schedule_commands as command

    run(command.delete(name, where_of(autoscaler=autoscaler, state_dir=state_dir), output))


@app.command("run")
def run_now(
    name: ScheduleArgument,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit its task now, beside its slots."""
    from forebay.cli import schedule_commands as command

    run(command.run_now(name, where_of(autoscaler=autoscaler, state_dir=state_dir), output))
