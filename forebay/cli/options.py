"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from forebay.cli.output import Output

_MESH = "Where the mesh is"
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="Print a table, or JSON on standard output.")
]
RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        envvar="FOREBAY_ROUTER",
        metavar="HOST:PORT",
        help="The router. Default: of the mesh that runs here.",
        rich_help_panel=_MESH,
    ),
]
AutoscalerOption = Annotated[
    str | None,
    typer.Option(
        "--autoscaler",
        envvar="FOREBAY_AUTOSCALER",
        metavar="HOST:PORT",
        help="The autoscaler. Default: of the mesh that runs here.",
        rich_help_panel=_MESH,
    ),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        envvar="FOREBAY_METRICS",
        metavar="HOST:PORT",
        help="The metrics service. Default: of the mesh that runs here.",
        rich_help_panel=_MESH,
    ),
]
StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="FOREBAY_STATE_DIR",
        file_okay=False,
        help="State of the local mesh. Default: ~/.local/state/forebay.",
        rich_help_panel=_MESH,
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the deployment.")]
OptionalNameArgument = Annotated[
    str | None, typer.Argument(metavar="NAME", help="A deployment; all if left out.")
]
