"""The sliding extremes against what counting by hand gives."""

import random

import pytest

from services.autoscaler.scaling.wishes import MAX_ENTRIES, Wishes, noted_fewest, noted_most, since


def in_force(history: list[tuple[float, int]], from_s: float) -> list[int]:
    """What was wished for from an instant on, the wish that stood then included."""
    before = [count for at_s, count in history if at_s <= from_s]
    return before[-1:] + [count for at_s, count in history if at_s > from_s]


@pytest.mark.parametrize("seed", range(20))
def test_extremes_are_those_of_all_wishes_in_the_delay(seed: int) -> None:
    chance = random.Random(seed)
    length_s = chance.choice([0.0, 1.0, 3.0, 30.0])
    fewest: Wishes = ()
    most: Wishes = ()
    history: list[tuple[float, int]] = []
    now_s = 0.0
    count = 3
    for _ in range(400):
        now_s += chance.choice([0.125, 1.0, 7.0])
        count = chance.randrange(8) if chance.random() < 0.5 else count
        history.append((now_s, count))
        fewest = noted_fewest(fewest, now_s, count, length_s)
        most = noted_most(most, now_s, count, length_s)
        start_s = now_s - length_s
        if history[0][0] > start_s:
            assert since(fewest, start_s) is None
            assert since(most, start_s) is None
            continue
        assert since(fewest, start_s) == min(in_force(history, start_s))
        assert since(most, start_s) == max(in_force(history, start_s))
        # A shorter delay reads from the same entries.
        assert since(most, now_s - length_s / 2) == max(in_force(history, now_s - length_s / 2))


@pytest.mark.parametrize("rising", [True, False])
def test_a_staircase_stays_bounded_and_errs_towards_keeping(rising: bool) -> None:
    noted = noted_fewest if rising else noted_most
    wishes: Wishes = ()
    steps = range(1000) if rising else range(1000, 0, -1)
    last = 0
    for at_s, count in enumerate(steps):
        wishes = noted(wishes, float(at_s), count, 3600)
        last = count
    assert len(wishes) <= MAX_ENTRIES
    extreme = since(wishes, 999.0)
    assert extreme is not None
    assert extreme <= last if rising else extreme >= last


def test_what_is_not_known_for_the_whole_delay_is_not_known() -> None:
    wishes = noted_most((), 100.0, 0, 10)
    assert since(wishes, 95.0) is None
    assert since(wishes, 100.0) == 0
