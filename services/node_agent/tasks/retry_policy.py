"""Pure: what becomes of a task after an attempt that did not succeed."""

import enum
import re

from forebay.v1.envelope_pb2 import (
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
    Outcome,
)

MAX_LOST_DELIVERIES = 10
"""A task of which so many deliveries ended without a word, with an agent that died, has FAILED."""

MAX_LOSSES = 10
"""Deaths of a replica that a task is not blamed for, because others were inside."""

MAX_REFUSALS = 30
"""Times that a Triton that lives may refuse a task because it is busy. With the pauses, about 4
minutes; after that each refusal is a failed attempt."""

FIRST_REFUSAL_S = 0.2
MAX_REFUSAL_S = 10.0

GIVEN_BACK_S = 0.05
"""Before a task that was given back is delivered again: at once, it could come back to where it
came from."""

MAX_GIVEN_BACK_S = 30.0

MIN_JITTER_RATIO = 0.8

_PERMANENT = re.compile(r"(^|: )permanent: ")


class Verdict(enum.Enum):
    """What follows from an attempt that did not succeed."""

    FAIL = "trying again cannot help"
    RETRY = "the attempt counts"
    REFUSED = "Triton is busy; the attempt does not count"


def judge(outcome: Outcome, message: str, final: bool) -> Verdict:
    """What follows from Triton's answer.

    Args:
        outcome: of the attempt; not OK.
        message: the model's or Triton's; one that has `permanent: ` at its beginning or after a
            colon, as exceptions are printed, says that trying again cannot help.
        final: the answer itself is what is wrong, such as one that is too large.
    """
    if final or outcome == OUTCOME_INVALID_ARGUMENT or _PERMANENT.search(message):
        return Verdict.FAIL
    if outcome in (OUTCOME_UNAVAILABLE, OUTCOME_RESOURCE_EXHAUSTED):
        return Verdict.REFUSED
    return Verdict.RETRY


def may_retry(failed_count: int, max_retries: int) -> bool:
    """Whether a task may be tried again after so many attempts that count."""
    return failed_count <= max_retries


def backoff_s(
    failed_count: int, min_backoff_s: float, max_backoff_s: float, chance: float
) -> float:
    """Seconds until the next attempt: doubling, bounded, and less a fifth at most by chance.

    Args:
        failed_count: attempts that count, at least 1.
        min_backoff_s: after the first.
        max_backoff_s: the most.
        chance: 0 to 1; spreads tasks that failed together.
    """
    # Beyond 2^60 a float of seconds is more than any maximum.
    full_s = min(max_backoff_s, min_backoff_s * 2.0 ** min(failed_count - 1, 60))
    return full_s * (MIN_JITTER_RATIO + (1 - MIN_JITTER_RATIO) * chance)


def refusal_s(refused_count: int) -> float:
    """Seconds until a busy Triton is asked again.

    Args:
        refused_count: refusals so far, at least 1.
    """
    return float(min(MAX_REFUSAL_S, FIRST_REFUSAL_S * 2.0 ** min(refused_count - 1, 60)))


def given_back_s(given_back_count: int) -> float:
    """Seconds until a task that was given back is delivered again: longer each time.

    A task that waits to run alone is given back whenever one before it kills the replica, and the
    queue has only so many deliveries for it.

    Args:
        given_back_count: times before this one, from 0.
    """
    return float(min(MAX_GIVEN_BACK_S, GIVEN_BACK_S * 2.0 ** min(given_back_count, 60)))


def agents_lost(delivery: int, accounted_count: int) -> int:
    """Earlier deliveries of which nobody wrote down how they ended.

    Args:
        delivery: this one, from 1.
        accounted_count: deliveries that are accounted for.
    """
    return max(0, delivery - 1 - accounted_count)
