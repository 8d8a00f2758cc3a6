"""Pure: why the launcher did not do something, in a sentence for people and a kind for programs."""

from enum import StrEnum


class Kind(StrEnum):
    """What sort of refusal it is; each has the gRPC status of its name."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class RefusedError(Exception):
    """Something that was not done.

    Attributes:
        kind: what sort of refusal it is.
        message: what is wrong, and what to do.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def invalid(message: str) -> RefusedError:
    """The request itself is wrong."""
    return RefusedError(Kind.INVALID_ARGUMENT, message)
