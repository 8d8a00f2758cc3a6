"""What callers are told when a call fails."""

import base64
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc.status_pb2 import Status

from forebay.inference import Call
from forebay.v1.envelope_pb2 import (
    OUTCOME_INTERNAL,
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_UNAVAILABLE,
    Outcome,
)
from services.router.inference import Caller, InferenceCore
from services.router.servicers import InferServicer, shortened
from services.wire.http2.server.grpc_server import GrpcServer
from services.wire.limits import MAX_GRPC_MESSAGE_BYTES
from services.wire.outcomes import OutcomeError


class TalkativeCore(InferenceCore):
    """Fails with whatever the model said."""

    def __init__(
        self, message: str, outcome: Outcome = OUTCOME_INTERNAL, by_replica: bool = False
    ) -> None:
        self._failure = OutcomeError(outcome, message, by_replica=by_replica)

    async def infer(self, body: bytes, caller: Caller) -> bytes:
        raise self._failure


@asynccontextmanager
async def channel_to(servicer: InferServicer) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a router that serves `/a/Infer`."""
    server = GrpcServer(MAX_GRPC_MESSAGE_BYTES)
    server.add_raw("/a/Infer", servicer.infer)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


@pytest.mark.parametrize("character", ["x", "\n", "語"])
async def test_a_model_that_says_much_fails_with_its_own_status(character: str) -> None:
    async with channel_to(InferServicer(TalkativeCore(character * 50_000))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/a/Infer")(b"")
    error = caught.value
    assert error.code() == grpc.StatusCode.INTERNAL
    details = error.details() or ""
    assert details.startswith(character * 400)
    assert "cut here" in details
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    assert Status.FromString(packed).message == details


def test_a_short_message_stays_as_it_is() -> None:
    assert shortened("the model was told to raise: 100 % ü") == (
        "the model was told to raise: 100 % ü"
    )
    assert shortened("x" * 2000) == "x" * 2000


@pytest.mark.parametrize("character", ["x", "%", "\n", "ü", "語", "🙂"])
def test_a_long_message_is_cut_between_characters_and_fits_into_trailers(character: str) -> None:
    message = character * 100_000
    cut = shortened(message)
    kept, _, rest = cut.partition("…")
    assert message.startswith(kept)
    assert kept
    assert f"{len(message.encode())} bytes" in rest
    assert len(kept.encode()) <= 2000
    twice = len(urllib.parse.quote(cut, safe=" ")) + len(base64.b64encode(cut.encode()))
    assert twice < 7000, "of 8192 bytes for all trailers"


class Recorded(Call):
    """Keeps the description of its span."""

    description = ""

    def end(
        self,
        error: str | None,
        attributes: object = None,
        description: str = "",
        status: str | None = None,
    ) -> None:
        self.description = description


@pytest.mark.parametrize("by_replica", [True, False])
@pytest.mark.parametrize("outcome", [OUTCOME_INVALID_ARGUMENT, OUTCOME_UNAVAILABLE])
async def test_a_models_words_stay_out_of_its_callers_span_whatever_it_fails_with(
    outcome: Outcome, by_replica: bool
) -> None:
    core = TalkativeCore("no card 4111", outcome, by_replica)
    async with channel_to(InferServicer(core)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/a/Infer")(b"")
    call = Recorded("m", "address", None)
    typed = call.failed(caught.value)
    assert "no card 4111" in str(typed)
    assert ("4111" in call.description) is not by_replica
