"""Refusals that are no outcome of a request, with the gRPC status each is told with."""

import grpc

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from services.wire.outcomes import STATUS, OutcomeError


class AlreadyThereError(OutcomeError):
    """What was to be made is there already, and is another."""

    def __init__(self, message: str) -> None:
        super().__init__(OUTCOME_INVALID_ARGUMENT, message)


class NotPossibleError(OutcomeError):
    """What is asked for does not go with the state that a thing is in."""

    def __init__(self, message: str) -> None:
        super().__init__(OUTCOME_INVALID_ARGUMENT, message)


def status_of(error: OutcomeError) -> grpc.StatusCode:
    """The status that an error is told with."""
    if isinstance(error, AlreadyThereError):
        return grpc.StatusCode.ALREADY_EXISTS
    if isinstance(error, NotPossibleError):
        return grpc.StatusCode.FAILED_PRECONDITION
    return STATUS[error.outcome]
