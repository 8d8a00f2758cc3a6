"""Which errors of a call say that a router went away, so that the call is made again."""

import grpc
import grpc.aio
import pytest
from grpc.aio import Metadata

from forebay.task_client.calls import is_away


def error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(), details)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.CANCELLED, "the router stops"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        # What grpcio says when a stream breaks while it sends.
        (grpc.StatusCode.INTERNAL, "Internal error from Core"),
    ],
)
def test_a_router_that_went_away_is_told_by(code: grpc.StatusCode, details: str) -> None:
    assert is_away(error(code, details))


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.INTERNAL, "the model raised"),
        (grpc.StatusCode.INVALID_ARGUMENT, "no"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full"),
    ],
)
def test_what_a_router_answers_is_no_absence(code: grpc.StatusCode, details: str) -> None:
    assert not is_away(error(code, details))
