"""`forebay health`: whether one process serves, as its exit code."""

from typing import Annotated

import typer

from forebay.cli.failure import UNREACHABLE, CliError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(health)


def health(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="host:port or unix:/path of a gRPC server, or an http:// URL."
        ),
    ],
    service: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="One gRPC service of it, such as forebay.v1.LauncherService: it serves while "
            "replicas can be started.",
        ),
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds the answer may take.")
    ] = 4.0,
) -> None:
    """Ask one process whether it serves; the exit code says so."""
    from services.runtime import health_probe

    try:
        health_probe.probe(address, timeout_s, service)
    except health_probe.NotServingError as error:
        raise CliError(f"{error}.", UNREACHABLE) from None
    typer.echo(f"{address} serves")
