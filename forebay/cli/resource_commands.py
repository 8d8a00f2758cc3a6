"""The commands that show what replicas share and what was used, as they are said."""

from typing import Annotated, Literal

import typer

from forebay.cli.options import (
    AutoscalerOption,
    MetricsOption,
    OptionalNameArgument,
    OutputOption,
    StateDirOption,
)
from forebay.cli.output import Output
from forebay.cli.running import run, where_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(volumes)
    app.command()(usage)


def volumes(
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the volumes, which nodes offer them, and where they are on this machine."""
    from forebay.cli import volumes as command

    run(command.run(where_of(metrics=metrics, state_dir=state_dir), output))


def usage(
    name: OptionalNameArgument = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="How far back: a number with m, h, d or w.")
    ] = "24h",
    by_batch: Annotated[
        bool, typer.Option("--by-batch", help="What tasks used, by tenant and batch.")
    ] = False,
    by_hour: Annotated[bool, typer.Option("--by-hour", help="Hour by hour, in UTC.")] = False,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: Annotated[
        Literal["table", "json", "csv"],
        typer.Option("--output", "-o", help="Print a table, JSON or CSV on standard output."),
    ] = "table",
) -> None:
    """Show how long replicas and their GPUs were held, from the beginning of an hour on."""
    from forebay.cli import usage as command
    from services.runtime.clock import SystemClock

    options = command.UsageOptions(name, since, by_batch, by_hour, command.UsageOutput(output))
    where = where_of(autoscaler=autoscaler, state_dir=state_dir)
    run(command.run(options, where, SystemClock().wall_s()))
