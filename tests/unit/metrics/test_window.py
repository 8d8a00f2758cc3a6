"""Sliding windows: what they hold, and what they forget."""

import pytest

from services.metrics.window import (
    Histogram,
    HistogramWindow,
    Observed,
    Sum,
    difference,
    quantiles,
)

BOUNDS = (0.1, 1.0, 10.0)


def histogram(*counts: int, sum_s: float = 0.0, bounds_s: tuple[float, ...] = BOUNDS) -> Histogram:
    return Histogram(bounds_s, counts, sum_s)


def observed(*counts: int, sum_s: float = 0.0, bounds_s: tuple[float, ...] = BOUNDS) -> Observed:
    return difference(None, histogram(*counts, sum_s=sum_s, bounds_s=bounds_s))


def test_what_happened_between_two_reports_is_the_difference() -> None:
    before, now = histogram(1, 2, 3, 4, sum_s=50.0), histogram(2, 2, 5, 4, sum_s=60.0)
    assert difference(before, now) == observed(1, 0, 2, 0, sum_s=10.0)


def test_a_counter_that_went_down_means_that_all_of_it_is_new() -> None:
    now = histogram(2, 0, 0, 0, sum_s=0.1)
    assert difference(histogram(1, 2, 3, 4, sum_s=50.0), now) == observed(2, 0, 0, 0, sum_s=0.1)


def test_other_bounds_mean_that_all_of_it_is_new() -> None:
    now = histogram(2, 3, bounds_s=(1.0,))
    assert difference(histogram(1, 1, 1, 1), now) == observed(2, 3, bounds_s=(1.0,))


def test_other_bounds_go_into_the_first_bucket_that_holds_them() -> None:
    held = Sum(BOUNDS)
    held.add(observed(1, 10, 100, 1000, bounds_s=(0.05, 1.0, 5.0)))
    assert held.histogram().counts == (1, 10, 100, 1000)


@pytest.mark.parametrize(
    ("counts", "q", "expected_s"),
    [
        ((10, 0, 0, 0), 0.5, 0.05),
        ((0, 10, 0, 0), 0.5, 0.55),
        ((50, 50, 0, 0), 0.5, 0.1),
        ((0, 0, 0, 7), 0.5, 10.0),
        ((0, 0, 5, 0), 0.0, 1.0),
        ((1, 0, 0, 1), 1.0, 10.0),
    ],
)
def test_quantiles_are_linear_within_a_bucket(counts, q, expected_s) -> None:
    assert quantiles(histogram(*counts), (q,)) == [pytest.approx(expected_s)]


def test_many_quantiles_are_those_taken_one_by_one() -> None:
    held, qs = histogram(3, 50, 7, 2), (0.0, 0.01, 0.5, 0.95, 0.99, 1.0)
    assert quantiles(held, qs) == [quantiles(held, (q,))[0] for q in qs]


def test_nothing_observed_has_no_quantiles() -> None:
    with pytest.raises(ValueError, match="without observations"):
        quantiles(histogram(0, 0, 0, 0), (0.5,))


def test_a_window_forgets_what_is_older_than_its_length() -> None:
    window = HistogramWindow(30.0)
    for second in range(100):
        window.add(float(second), observed(1, 0, 0, 0))
    held = window.total(99.0)
    assert held is not None
    assert 27 <= held.count <= 30
    assert window.total(1000.0) is None


def test_a_window_holds_a_bounded_number_of_slots() -> None:
    window = HistogramWindow(30.0)
    for tick in range(10_000):
        window.add(tick / 100, observed(1, 0, 0, 0))
    assert len(window._slots) <= 11
    held = window.total(99.99)
    assert held is not None
    assert held.count == pytest.approx(3000, abs=300)


def test_what_leaves_a_window_is_taken_off_even_if_it_came_in_other_buckets() -> None:
    window = HistogramWindow(30.0)
    window.add(0.0, observed(1, 0, 0, 0, sum_s=0.05))
    window.add(3.0, observed(0, 4, bounds_s=(0.5,), sum_s=40.0))
    window.add(20.0, observed(0, 2, 0, 0, sum_s=1.0))
    held = window.total(31.0)
    assert held is not None
    assert (held.counts, held.sum_s) == ((0, 2, 0, 4), pytest.approx(41.0))
    held = window.total(33.0)
    assert held is not None
    assert (held.counts, held.sum_s) == ((0, 2, 0, 0), pytest.approx(1.0))


def test_a_window_says_whether_it_has_changed() -> None:
    window = HistogramWindow(30.0)
    window.add(0.0, observed(1, 0, 0, 0))
    before = window.version
    window.slide(29.0)
    assert window.version == before
    window.slide(30.0)
    assert window.version != before
