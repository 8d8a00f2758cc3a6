"""Sliding windows: what they hold, and what they forget."""

import pytest

from services.metrics.window import (
    ArrivalWindow,
    Histogram,
    HistogramWindow,
    QueueState,
    difference,
    quantile,
    total,
)

BOUNDS = (0.1, 1.0, 10.0)


def histogram(*counts: int, sum_s: float = 0.0, bounds_s: tuple[float, ...] = BOUNDS) -> Histogram:
    return Histogram(bounds_s, counts, sum_s)


def queue(pending: int, delivered: int, redelivered: int = 0, incarnation: str = "1") -> QueueState:
    return QueueState(incarnation, pending, delivered, 0, redelivered)


def test_what_happened_between_two_reports_is_the_difference() -> None:
    before, now = histogram(1, 2, 3, 4, sum_s=50.0), histogram(2, 2, 5, 4, sum_s=60.0)
    assert difference(before, now) == histogram(1, 0, 2, 0, sum_s=10.0)


def test_a_counter_that_went_down_means_that_all_of_it_is_new() -> None:
    now = histogram(2, 0, 0, 0, sum_s=0.1)
    assert difference(histogram(1, 2, 3, 4, sum_s=50.0), now) == now


def test_other_bounds_mean_that_all_of_it_is_new() -> None:
    now = histogram(2, 3, bounds_s=(1.0,))
    assert difference(histogram(1, 1, 1, 1), now) == now


def test_other_bounds_go_into_the_first_bucket_that_holds_them() -> None:
    other = histogram(1, 10, 100, 1000, bounds_s=(0.05, 1.0, 5.0))
    assert total(histogram(0, 0, 0, 0), other).counts == (1, 10, 100, 1000)


@pytest.mark.parametrize(
    ("counts", "q", "expected_s"),
    [
        ((10, 0, 0, 0), 0.5, 0.05),
        ((0, 10, 0, 0), 0.5, 0.55),
        ((50, 50, 0, 0), 0.5, 0.1),
        ((0, 0, 0, 7), 0.5, 10.0),
        ((0, 0, 0, 0), 0.5, None),
    ],
)
def test_quantiles_are_linear_within_a_bucket(counts, q, expected_s) -> None:
    assert quantile(histogram(*counts), q) == (
        None if expected_s is None else pytest.approx(expected_s)
    )


def test_a_window_forgets_what_is_older_than_its_length() -> None:
    window = HistogramWindow(30.0)
    for second in range(100):
        window.add(float(second), histogram(1, 0, 0, 0))
    held = window.total(99.0)
    assert held is not None
    assert held.count == 30
    assert window.total(1000.0) is None


def test_a_window_holds_a_bounded_number_of_slots() -> None:
    window = HistogramWindow(30.0)
    for tick in range(10_000):
        window.add(tick / 100, histogram(1, 0, 0, 0))
    assert len(window._slots) <= 31
    held = window.total(99.99)
    assert held is not None
    assert held.count == pytest.approx(3000, abs=100)


def test_arrivals_are_the_growth_of_pending_and_delivered() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(pending=5, delivered=100))
    assert window.per_second(0.0) is None
    window.add(1.0, queue(pending=0, delivered=115))
    window.add(2.0, queue(pending=10, delivered=115))
    assert window.per_second(2.0) == pytest.approx(10.0)


def test_redeliveries_are_not_arrivals() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(pending=0, delivered=10))
    window.add(1.0, queue(pending=0, delivered=14, redelivered=4))
    assert window.per_second(1.0) == 0.0


def test_a_consumer_created_anew_counts_from_there() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(pending=0, delivered=1000))
    window.add(1.0, queue(pending=0, delivered=1010))
    window.add(2.0, queue(pending=0, delivered=3, incarnation="2"))
    window.add(3.0, queue(pending=0, delivered=13, incarnation="2"))
    assert window.per_second(3.0) == pytest.approx(20 / 3)


def test_requests_that_expired_in_the_queue_are_not_negative_arrivals() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(pending=50, delivered=0))
    window.add(1.0, queue(pending=0, delivered=0))
    assert window.per_second(1.0) == 0.0


def test_arrivals_are_not_known_when_the_window_has_passed() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(0, 0))
    window.add(1.0, queue(0, 10))
    assert window.per_second(100.0) is None
