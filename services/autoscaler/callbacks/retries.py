"""What becomes of a call after an attempt. Pure: time is an argument.

How long to wait follows from how old the order is, so that nothing has to be kept of attempts:
each pause is four times the age, at least 5 s and at most 1 h. Attempts are made at about 0 s, 5 s,
25 s, 2 min, 10 min, 52 min and then each hour.
"""

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0
AGE_FACTOR = 4.0
SPREAD_RATIO = 0.1
GIVEN_UP_AFTER_S = 24 * 3600.0

GONE = 410
"""The status by which a receiver says that it wants no more calls."""


def taken(status: int) -> bool:
    """Whether a receiver's answer says that it has taken the call."""
    return 200 <= status < 300


def pause_s(age_s: float, chance: float) -> float | None:
    """Seconds until the next attempt; None if there is to be none.

    Args:
        age_s: how long ago the call was ordered.
        chance: 0 to 1, by which calls that failed together are spread.
    """
    if age_s >= GIVEN_UP_AFTER_S:
        return None
    pause = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, AGE_FACTOR * age_s))
    return pause * (1 + SPREAD_RATIO * chance)
