"""Bounds on the calls a router holds."""

import asyncio

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_RESOURCE_EXHAUSTED, RequestEnvelope
from services.router.pending import PendingCall, PendingCalls
from services.wire.outcomes import OutcomeError


def call(deployment: str, number: int, size: int = 10) -> PendingCall:
    return PendingCall(
        request_id=f"{deployment}-{number}",
        deployment=deployment,
        envelope=RequestEnvelope(),
        deadline_s=1.0,
        attempt_limit_s=1.0,
        size=size,
        reply=asyncio.get_running_loop().create_future(),
        message_id=f"{number}",
    )


async def test_each_bound_refuses_with_its_name_and_when_to_try_again() -> None:
    pending = PendingCalls(max_calls=3, max_bytes=35)
    for number in range(2):
        pending.add(call("a", number))
    for deployment, size, max_queued, named in (
        ("a", 1, 2, "max_queued_requests"),
        ("b", 16, 9, "max_pending_bytes"),
    ):
        with pytest.raises(OutcomeError, match=named) as caught:
            pending.admit(deployment, size, max_queued)
        assert caught.value.outcome == OUTCOME_RESOURCE_EXHAUSTED
        assert caught.value.retry_after_s == 1.0
    pending.add(call("b", 9))
    with pytest.raises(OutcomeError, match="max_pending_calls"):
        pending.admit("b", 1, 9)


async def test_a_removed_call_makes_room() -> None:
    pending = PendingCalls(max_calls=1, max_bytes=100)
    held = call("a", 1, size=100)
    pending.add(held)
    pending.remove(held)
    pending.admit("a", 100, 1)
    assert len(pending) == 0


async def test_repeats_of_a_call_count_each_and_one_gets_the_replies() -> None:
    pending = PendingCalls(max_calls=2, max_bytes=100)
    first, repeat = call("a", 1), call("a", 1)
    pending.add(first)
    pending.add(repeat)
    assert pending.get("a-1") is first
    with pytest.raises(OutcomeError, match="max_pending_calls"):
        pending.admit("b", 1, 9)
    pending.lead(repeat)
    pending.remove(first)
    assert pending.get("a-1") is repeat
    pending.remove(repeat)
    assert (len(pending), pending.get("a-1")) == (0, None)


async def test_a_call_ends_once() -> None:
    ended = call("a", 1)
    ended.fail(OutcomeError(OUTCOME_RESOURCE_EXHAUSTED, "first"))
    ended.fail(OutcomeError(OUTCOME_RESOURCE_EXHAUSTED, "second"))
    with pytest.raises(OutcomeError, match="first"):
        await ended.reply
