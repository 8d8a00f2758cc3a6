"""The commands that show what replicas share and what was used, as they are said."""

import typer

from forebay.cli.options import MetricsOption, OutputOption, StateDirOption
from forebay.cli.output import Output
from forebay.cli.running import run, where_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(volumes)


def volumes(
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the volumes, which nodes offer them, and where they are on this machine."""
    from forebay.cli import volumes as command

    run(command.run(where_of(metrics=metrics, state_dir=state_dir), output))
