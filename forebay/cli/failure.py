"""How a command fails: a sentence or two for a person and an exit code for a script."""

from typing import NoReturn

import grpc

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
UNREACHABLE = 4
INTERRUPTED = 130

_FLAGS = {"router": "--router", "autoscaler": "--autoscaler", "metrics": "--metrics"}


class CliError(Exception):
    """A command failed; the text says what happened and what to do next."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unreachable(service: str, address: str) -> CliError:
    """The failure to reach a service of the mesh."""
    return CliError(
        f"nothing answers at {address}, where the {service} should be. Start a mesh with "
        f"`forebay up`, or say where it is with {_FLAGS[service]}.",
        UNREACHABLE,
    )


def raise_for(error: grpc.RpcError, service: str, address: str) -> NoReturn:
    """Raises the failure that a failed call to a service means.

    Raises:
        CliError: always.
    """
    status, details = error.code(), error.details() or error.code().name
    match status:
        case grpc.StatusCode.UNAVAILABLE if "connect" in details.lower():
            raise unreachable(service, address) from None
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            raise CliError(
                f"the {service} at {address} does not answer: {details}. Try again; "
                "`forebay doctor` says whether the mesh is healthy.",
                UNREACHABLE,
            ) from None
        case grpc.StatusCode.NOT_FOUND:
            raise CliError(
                f"{details.rstrip('.')}. `forebay list` shows what is deployed.", NOT_FOUND
            ) from None
        case grpc.StatusCode.UNIMPLEMENTED:
            raise CliError(
                f"what answers at {address} is not the {service} of this version: {details} Say "
                f"where it is with {_FLAGS[service]}.",
                UNREACHABLE,
            ) from None
        case grpc.StatusCode.INVALID_ARGUMENT:
            raise CliError(details, USAGE) from None
        case _:
            raise CliError(f"{service}: {details}") from None
