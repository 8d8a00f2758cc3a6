"""Options of `forebay schedules create`."""

from pathlib import Path
from typing import Annotated

import typer

_TASKS = "What its tasks are like"

ScheduleArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the schedule.", show_default=False)
]
DeploymentArgument = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="The deployment that runs its tasks.")
]
FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="A file, for a model with one BYTES input."),
]
WhenOption = Annotated[
    str,
    typer.Option(
        metavar="CRON",
        help="Five fields: minute, hour, day of month, month, day of week. '0 2 * * *' is every "
        "day at 2:00.",
    ),
]
TimezoneOption = Annotated[
    str, typer.Option(metavar="ZONE", help="IANA name, such as Europe/Berlin. Default: UTC.")
]
InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="An input: a JSON array such as X='[[1, 2]]', or X=@file.npy. Repeatable.",
    ),
]
MissedOption = Annotated[
    str,
    typer.Option(
        metavar="skip|run-once", help="What becomes of slots that nobody fired within a minute."
    ),
]
OverlapOption = Annotated[
    str,
    typer.Option(
        metavar="skip|allow|replace",
        help="What becomes of a slot while an earlier task has not ended.",
    ),
]
PausedOption = Annotated[bool, typer.Option("--paused", help="Let slots pass for now.")]
PriorityOption = Annotated[
    str,
    typer.Option(
        metavar="high|normal|low",
        help="Which waiting tasks come first.",
        rich_help_panel=_TASKS,
    ),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="To list tasks by. Repeatable.",
        rich_help_panel=_TASKS,
    ),
]
RetriesOption = Annotated[
    int | None,
    typer.Option(help="Attempts after the first. Default: 3.", rich_help_panel=_TASKS),
]
AttemptTimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds one attempt may take.", rich_help_panel=_TASKS)
]
TtlOption = Annotated[
    float | None,
    typer.Option(help="Seconds within which a task must have ended.", rich_help_panel=_TASKS),
]
ResultTtlOption = Annotated[
    float | None,
    typer.Option(help="Seconds for which its result is kept.", rich_help_panel=_TASKS),
]
CallbackOption = Annotated[
    str | None, typer.Option(help="Where a task's end is posted.", rich_help_panel=_TASKS)
]
