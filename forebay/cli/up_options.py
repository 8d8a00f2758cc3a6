"""Options of `forebay up`: what the mesh consists of and where it listens."""

from pathlib import Path
from typing import Annotated, Literal

import typer

NodesOption = Annotated[int, typer.Option(min=0, max=64, help="Node agents to start.")]
SlotsOption = Annotated[
    int, typer.Option(min=0, max=1024, help="Replicas without a GPU that each node may run.")
]
GpusOption = Annotated[int, typer.Option(min=0, max=16, help="Simulated GPUs of each node.")]
SimulatedOption = Annotated[
    bool,
    typer.Option(
        "--simulated-gpus",
        help="Make GPUs up, to try out placement and scaling: replicas run on the CPU.",
    ),
]
ProductOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Product that simulated GPUs pretend to be, such as L4."),
]
NodeProvider = Literal["none", "local"]
ProviderOption = Annotated[
    NodeProvider,
    typer.Option(help="Who adds nodes when replicas find no place; local: agents on this machine."),
]
MaxNodesOption = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Nodes that the local provider may add. Default: 4."),
]
AutoscalersOption = Annotated[
    int, typer.Option(min=1, max=2, help="Autoscalers to start, of which one leads.")
]
VolumeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--volume",
        metavar="NAME[=DIR][:ro]",
        help="A folder that replicas may see by this name, :ro for reading only. Without DIR: "
        "volumes/NAME in the state directory, which is made. Repeatable.",
    ),
]
PoliciesDirOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        resolve_path=True,
        help="Where the functions of custom policies are imported from.",
    ),
]
CallbackSecretOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        resolve_path=True,
        help="Secret that signs callbacks of tasks; without one they are not made.",
    ),
]
CallbackNetworkOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK",
        help="Network that callbacks may go to though it is not public, such as 127.0.0.0/8. "
        "May be repeated.",
    ),
]
RouterAddressOption = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0: any.")
]
AutoscalerAddressOption = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where the autoscaler listens.")
]
MetricsAddressOption = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where metrics listens.")
]
MetricsHttpAddressOption = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where Prometheus scrapes.")
]
AckWaitOption = Annotated[
    float | None,
    typer.Option(
        min=1, max=300, help="Seconds without progress after which a request is tried again."
    ),
]
LogLevelOption = Annotated[
    str, typer.Option(help="debug, info, warning or error, for the services' logs.")
]
