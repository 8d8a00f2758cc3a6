"""Means over time."""

import random

import pytest

from services.autoscaler.scaling import load_window
from services.autoscaler.scaling.load_window import LoadWindow


def test_a_load_counts_for_as_long_as_it_stood() -> None:
    window = LoadWindow(10)
    window.add(0, 0, 0)
    window.add(1, 9, 18)
    window.add(4, 0, 0)
    assert window.means(10) == pytest.approx((2.7, 5.4))
    assert window.means(13) == pytest.approx((0.9, 1.8))
    assert window.means(14) == (0, 0)


def test_the_first_look_is_the_mean() -> None:
    window = LoadWindow(10)
    assert window.means(5) is None
    window.add(5, 7, 8)
    assert window.means(5) == (7, 8)
    assert window.means(6) == (7, 8)


def test_a_window_is_covered_once_its_length_has_been_seen() -> None:
    window = LoadWindow(10)
    assert not window.covers(0)
    window.add(0, 3, 3)
    window.add(9.5, 4, 4)
    assert not window.covers(9.9)
    assert window.covers(10)


def test_nothing_is_left_of_what_came_before_a_gap() -> None:
    window = LoadWindow(10)
    window.add(0, 100, 100)
    window.add(5, 50, 50)
    window.clear()
    assert window.means(6) is None
    window.add(20, 2, 2)
    window.add(21, 4, 4)
    assert window.means(22) == (3, 3)
    assert not window.covers(29)


@pytest.mark.parametrize("seed", range(10))
def test_the_mean_is_that_of_sampling_finely(seed: int) -> None:
    chance = random.Random(seed)
    window = LoadWindow(10)
    samples: list[tuple[float, int]] = []
    now_s = 0.0
    for _ in range(300):
        load = chance.randrange(20) if chance.random() < 0.7 else (samples or [(0, 1)])[-1][1]
        samples.append((now_s, load))
        window.add(now_s, load, 2 * load)
        now_s += chance.choice([0.25, 1.0, 3.0, 30.0])
        start_s = max(0.0, now_s - 10)
        total = sum(
            load * max(0.0, min(until_s, now_s) - max(at_s, start_s))
            for (at_s, load), (until_s, _) in zip(samples, [*samples[1:], (now_s, 0)], strict=True)
        )
        mean = total / (now_s - start_s)
        assert window.means(now_s) == pytest.approx((mean, 2 * mean), abs=1e-9)


def test_samples_beyond_the_bound_make_the_oldest_ones_coarse_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_window, "MAX_SAMPLES", 64)
    window = LoadWindow(100)
    for tick in range(2000):
        window.add(tick / 10, tick % 2, tick % 2)
        assert len(window._samples) <= 64
    assert window.covers(200)
    assert window.means(200) == pytest.approx((0.5, 0.5), abs=0.02)


def test_errors_of_rounding_do_not_pile_up() -> None:
    window = LoadWindow(10)
    for tick in range(200_000):
        window.add(1e6 + tick * 0.1, tick % 7 + 1e5, tick % 3)
    now_s = 1e6 + 20_000
    window.add(now_s, 4, 4)
    assert window.means(now_s + 10) == (4, 4)
    window.add(now_s + 11, 0, 0)
    means = window.means(now_s + 15)
    assert means == pytest.approx((2.4, 2.4), abs=1e-6)
