"""Arrivals per second, told from redeliveries."""

import pytest

from services.metrics.arrivals import ArrivalWindow, QueueState


def queue(
    pending: int,
    delivered: int,
    redelivered: int = 0,
    incarnation: str = "1",
    sequence: int | None = None,
) -> QueueState:
    """A state; unless a sequence is given, the stream holds nothing of others."""
    first = delivered - redelivered if sequence is None else sequence
    return QueueState(incarnation, pending, delivered, first, 0, redelivered)


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


def test_second_and_later_redeliveries_are_not_arrivals_either() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(pending=0, delivered=10, sequence=10))
    for second in range(1, 11):
        state = queue(pending=0, delivered=10 + 4 * second, redelivered=4, sequence=10)
        window.add(float(second), state)
    assert window.per_second(10.0) == 0.0


def test_arrivals_among_redeliveries_are_told_by_the_stream_sequence() -> None:
    window = ArrivalWindow(30.0)
    window.add(0.0, queue(pending=0, delivered=10, redelivered=4, sequence=10))
    window.add(1.0, queue(pending=2, delivered=20, redelivered=4, sequence=13))
    assert window.per_second(1.0) == 5.0


def test_a_queue_that_is_seldom_asked_has_a_rate_all_the_time() -> None:
    window = ArrivalWindow(30.0)
    for second in range(0, 200, 20):
        window.add(float(second), queue(pending=0, delivered=second))
    assert window.per_second(199.9) == pytest.approx(1.0)


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
