"""What follows from an attempt that did not succeed."""

import pytest

from forebay.v1.envelope_pb2 import (
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_INTERNAL,
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
    Outcome,
)
from services.node_agent.tasks import retry_policy
from services.node_agent.tasks.retry_policy import Verdict, judge
from services.wire.tasks.streams import MAX_DELIVER


@pytest.mark.parametrize(
    ("outcome", "message", "verdict"),
    [
        (OUTCOME_INTERNAL, "ValueError: no", Verdict.RETRY),
        (OUTCOME_DEADLINE_EXCEEDED, "too slow", Verdict.RETRY),
        (OUTCOME_INVALID_ARGUMENT, "unexpected shape", Verdict.FAIL),
        (OUTCOME_INTERNAL, "permanent: no such file", Verdict.FAIL),
        (
            OUTCOME_INTERNAL,
            "Failed to process the request(s) for model instance 'm_0', message: ValueError: "
            "permanent: no such file\n\nAt:\n  model.py(9): execute\n",
            Verdict.FAIL,
        ),
        (OUTCOME_INTERNAL, "not permanent: try again", Verdict.RETRY),
        (OUTCOME_INTERNAL, "a permanent error", Verdict.RETRY),
        (OUTCOME_UNAVAILABLE, "Exceeds maximum queue size", Verdict.REFUSED),
        (OUTCOME_RESOURCE_EXHAUSTED, "busy", Verdict.REFUSED),
    ],
)
def test_an_answer_says_whether_to_try_again(
    outcome: Outcome, message: str, verdict: Verdict
) -> None:
    assert judge(outcome, message, final=False) is verdict


def test_an_answer_that_is_too_large_is_not_asked_for_again() -> None:
    assert judge(OUTCOME_INTERNAL, "9 MB", final=True) is Verdict.FAIL
    assert judge(OUTCOME_RESOURCE_EXHAUSTED, "90 MB", final=True) is Verdict.FAIL


def test_retries_are_attempts_after_the_first() -> None:
    assert retry_policy.may_retry(failed_count=3, max_retries=3)
    assert not retry_policy.may_retry(failed_count=4, max_retries=3)
    assert not retry_policy.may_retry(failed_count=1, max_retries=0)


def test_the_pause_doubles_up_to_its_maximum() -> None:
    pauses = [retry_policy.backoff_s(n, 1, 60, chance=1) for n in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert retry_policy.backoff_s(10_000, 1, 60, chance=1) == 60
    assert retry_policy.backoff_s(3, 0, 60, chance=1) == 0


def test_chance_takes_off_a_fifth_at_most() -> None:
    assert retry_policy.backoff_s(1, 10, 60, chance=0) == pytest.approx(8)
    assert retry_policy.backoff_s(1, 10, 60, chance=0.5) == pytest.approx(9)


def test_refusals_are_given_minutes_not_hours() -> None:
    pauses = [retry_policy.refusal_s(n) for n in range(1, retry_policy.MAX_REFUSALS + 1)]
    assert pauses[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert 120 < sum(pauses) < 600


def test_a_task_that_is_given_back_again_and_again_keeps_within_its_deliveries() -> None:
    """Behind a hundred others that kill the replica, 5 s each."""
    clock_s, deliveries = 0.0, 0
    while clock_s < 500:
        clock_s += max(5.0, retry_policy.given_back_s(deliveries))
        deliveries += 1
    assert deliveries < MAX_DELIVER / 3
    assert retry_policy.given_back_s(0) == 0.05
    assert retry_policy.given_back_s(10_000) == 30


def test_deliveries_that_nobody_accounts_for_ended_with_their_agents() -> None:
    assert retry_policy.agents_lost(delivery=1, accounted_count=0) == 0
    assert retry_policy.agents_lost(delivery=4, accounted_count=3) == 0
    assert retry_policy.agents_lost(delivery=4, accounted_count=1) == 2
