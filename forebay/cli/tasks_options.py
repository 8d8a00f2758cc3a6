"""Options that commands about tasks share."""

from enum import StrEnum
from typing import Annotated

import typer

_TASK = "What the tasks are like"


class Priority(StrEnum):
    """Which waiting tasks come first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


TenantOption = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        envvar="FOREBAY_TENANT",
        metavar="NAME",
        help="Whom the command speaks for. Default: default.",
        rich_help_panel="Where the mesh is",
    ),
]
PriorityOption = Annotated[
    Priority, typer.Option(help="Which waiting tasks come first.", rich_help_panel=_TASK)
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label", "-l", metavar="KEY=VALUE", help="A label. Repeatable.", rich_help_panel=_TASK
    ),
]
MaxRetriesOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=20,
        help="Attempts after the first that may fail. Default: 3.",
        rich_help_panel=_TASK,
    ),
]
MinBackoffOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds before the second attempt, doubled with each. Default: 1.",
        rich_help_panel=_TASK,
    ),
]
AttemptTimeoutOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="Seconds an attempt may run. Default: the deployment's request_timeout_s.",
        rich_help_panel=_TASK,
    ),
]
TtlOption = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Seconds after which a task that has not ended expires. Default: 86400.",
        rich_help_panel=_TASK,
    ),
]
ResultTtlOption = Annotated[
    float | None,
    typer.Option(min=1, help="Seconds a result is kept. Default: 86400.", rich_help_panel=_TASK),
]
CallbackOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Where to POST each task when it has ended.", rich_help_panel=_TASK
    ),
]
