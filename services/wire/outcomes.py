"""The one table from outcomes to gRPC statuses."""

import grpc

from forebay.v1.envelope_pb2 import (
    OUTCOME_ABORTED,
    OUTCOME_CANCELLED,
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_INTERNAL,
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_NOT_FOUND,
    OUTCOME_OK,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
    Outcome,
)

STATUS: dict[Outcome, grpc.StatusCode] = {
    OUTCOME_OK: grpc.StatusCode.OK,
    OUTCOME_DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    OUTCOME_CANCELLED: grpc.StatusCode.CANCELLED,
    OUTCOME_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    OUTCOME_INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    OUTCOME_RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    OUTCOME_ABORTED: grpc.StatusCode.ABORTED,
    OUTCOME_INTERNAL: grpc.StatusCode.INTERNAL,
}

LABELS: dict[Outcome, str] = {
    outcome: Outcome.Name(outcome).removeprefix("OUTCOME_").lower() for outcome in STATUS
}
"""Each outcome as a metric label."""


BY_REPLICA_KEY = "forebay-by-replica"
"""In the trailers of a call that failed with a replica's message."""


class OutcomeError(Exception):
    """A request that ended with an outcome other than OK.

    Attributes:
        outcome: how it ended.
        retry_after_s: when the caller may try again, if trying again can help.
        by_replica: the message came from a replica, and may be its model's own words.
    """

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        retry_after_s: float | None = None,
        by_replica: bool = False,
    ) -> None:
        super().__init__(message)
        self.by_replica = by_replica
        self.outcome = outcome
        self.message = message
        self.retry_after_s = retry_after_s


def from_triton(code: grpc.StatusCode) -> Outcome:
    """The outcome of an attempt that Triton answered with a status.

    Triton speaks of the request with INVALID_ARGUMENT, NOT_FOUND (an unknown version) and
    UNIMPLEMENTED (a decoupled model), and of load with UNAVAILABLE and RESOURCE_EXHAUSTED; the
    rest is the model's or Triton's own failure.
    """
    match code:
        case (
            grpc.StatusCode.INVALID_ARGUMENT
            | grpc.StatusCode.NOT_FOUND
            | grpc.StatusCode.UNIMPLEMENTED
        ):
            return OUTCOME_INVALID_ARGUMENT
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return OUTCOME_DEADLINE_EXCEEDED
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return OUTCOME_RESOURCE_EXHAUSTED
        case grpc.StatusCode.UNAVAILABLE:
            return OUTCOME_UNAVAILABLE
        case _:
            return OUTCOME_INTERNAL
