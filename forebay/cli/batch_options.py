"""Options of `forebay batch run`."""

from typing import Annotated

import typer

from forebay.cli.output import Output

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="INPUT", help="Rows: .jsonl, .ndjson or .parquet; may be volume://NAME/path."
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Where the answers go; may be volume://NAME/path."
    ),
]
ErrorsOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Rows that fail. Default: beside OUT, as .errors.jsonl."),
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Rows in one request.")]
InFlightOption = Annotated[
    int | None,
    typer.Option(min=1, help="Rows under way at most. Default: 1000, or those of 16 requests."),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME[=COLUMN]",
        help="The column for an input; without a column, the row itself. Repeatable.",
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this output. Repeatable."),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Copy a column into the answer; '*': all. Repeatable."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a run that did not end.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Begin, and write over what is there.")]
BatchOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Id of the batch. Default: a new one.")
]
StartTimeoutOption = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the first replica.")
]
FormatOption = Annotated[
    Output, typer.Option("--format", help="Print the summary as a table, or as JSON.")
]
