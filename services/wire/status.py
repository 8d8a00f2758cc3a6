"""Errors that already know which gRPC status they are."""

import grpc


class StatusError(Exception):
    """A call that fails; the text is for the caller and says what to do.

    Attributes:
        code: the status.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid_argument(message: str) -> StatusError:
    """The caller must change the request."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def nats_away(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status of a call that needed NATS and did not get it."""
    reason = str(error) or type(error).__name__
    return (
        grpc.StatusCode.UNAVAILABLE,
        f"NATS does not answer ({reason}): whether anything was changed is not known, try again",
    )
