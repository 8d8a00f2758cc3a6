"""Options of `forebay simulate`: what requests, replicas and nodes are like."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

_REQUESTS = "What requests are like"
_REPLICAS = "What replicas and nodes are like"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FilesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Deployment files, or their directories, to compare."),
]
TraceOption = Annotated[
    Path, typer.Option(help="When requests arrive: one for each row, or counts by minute.")
]
ServiceTimeOption = Annotated[
    str,
    typer.Option(
        metavar="S|P50,P95",
        help="Seconds a request takes: one number, or two percentiles of a log-normal.",
        rich_help_panel=_REQUESTS,
    ),
]
DurationsOption = Annotated[
    Path | None,
    typer.Option(
        help="File of service times instead: seconds, or by function as the trace has them.",
        rich_help_panel=_REQUESTS,
    ),
]
SpeedUpOption = Annotated[
    float,
    typer.Option(min=0.001, max=1000, help="How much faster they come.", rich_help_panel=_REQUESTS),
]
RepeatOption = Annotated[
    int,
    typer.Option(min=1, max=1000, help="How often to play the trace.", rich_help_panel=_REQUESTS),
]
EvenlyOption = Annotated[
    bool,
    typer.Option(
        "--evenly",
        help="Spread a minute's requests evenly, not at random.",
        rich_help_panel=_REQUESTS,
    ),
]
DurationOption = Annotated[
    float | None,
    typer.Option(
        min=1, help="Seconds to simulate. Default: all of the trace.", rich_help_panel=_REQUESTS
    ),
]
StartOption = Annotated[
    datetime,
    typer.Option(
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        help="What the clock says when the trace begins, in UTC: time windows go by it.",
        rich_help_panel=_REQUESTS,
    ),
]
StartupTimeOption = Annotated[
    str,
    typer.Option(
        metavar="S|P50,P95",
        help="Seconds from assigned to ready: one number, or two percentiles.",
        rich_help_panel=_REPLICAS,
    ),
]
NodesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000,
        help="Nodes that all share. Default: there is always room.",
        rich_help_panel=_REPLICAS,
    ),
]
GpusOption = Annotated[
    int, typer.Option(min=0, max=64, help="GPUs of each node.", rich_help_panel=_REPLICAS)
]
SlotsOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=1024,
        help="Replicas without a GPU that each node may run.",
        rich_help_panel=_REPLICAS,
    ),
]
LatencyTargetOption = Annotated[
    float, typer.Option(min=0, help="Seconds of queue wait that are still good.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
JobsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Processes. Default: one for each core.")
]
PlotOption = Annotated[
    Path | None, typer.Option(metavar="PNG", help="Draw it too; needs the extra 'plot'.")
]
