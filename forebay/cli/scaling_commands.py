"""The commands that set, show and explain replica counts, as they are said on the command line."""

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from forebay.cli.options import (
    AutoscalerOption,
    NameArgument,
    OptionalNameArgument,
    OutputOption,
    StateDirOption,
)
from forebay.cli.output import Output
from forebay.cli.running import run, where_of

MAX_REPLICAS = 1000


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(cls=_Scale)(scale)
    for command in (decisions, explain, demand):
        app.command()(command)


class _Scale(TyperCommand):
    """A command that knows a negative number from an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses a negative number of replicas as such."""
        for argument in args:
            if re.fullmatch(r"-\d+(\.\d+)?", argument):
                raise typer.BadParameter(
                    f"{argument} is not 0 to {MAX_REPLICAS}.", ctx=ctx, param_hint="N"
                )
        return super().parse_args(ctx, args)


def scale(
    name: NameArgument,
    replicas: Annotated[
        int | None,
        typer.Argument(
            metavar="N", min=0, max=MAX_REPLICAS, help="Replicas to keep, whatever the policy says."
        ),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Let the policy or the declared number decide again.")
    ] = False,
    advisory: Annotated[
        bool | None,
        typer.Option(
            "--advisory/--live",
            "--dry-run",
            help="Make decisions without acting on them, or act on them again.",
        ),
    ] = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Set the number of replicas by hand, or let go of it.

    It holds until released, also when the deployment is deployed again.
    """
    from forebay.cli import scale as command

    change = command.Change(replicas, release, advisory)
    run(command.run(name, change, where_of(autoscaler=autoscaler, state_dir=state_dir), output))


def decisions(
    name: OptionalNameArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is decided from now on.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, max=1000, help="Decisions of the past.")
    ] = 20,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what was decided on replica counts, and why; the newest last.

    Brackets mark what was not acted on. JSON is one list, or one line for each when following.
    """
    from forebay.cli import decisions as command

    where = where_of(autoscaler=autoscaler, state_dir=state_dir)
    run(command.run(name, follow, limit, where, output))


def explain(
    decision: Annotated[
        str,
        typer.Argument(
            metavar="DECISION",
            help="As `forebay decisions` shows it; the name of a deployment: its newest one.",
        ),
    ],
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Explain a decision: what was seen, what each step did, what would have changed it."""
    from forebay.cli import explain as command

    run(command.run(decision, where_of(autoscaler=autoscaler, state_dir=state_dir), output))


def demand(
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show which machines are missing, and which could go."""
    from forebay.cli import nodes as command

    run(command.demand(where_of(autoscaler=autoscaler, state_dir=state_dir), output))
