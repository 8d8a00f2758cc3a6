"""Time windows: which are open, what they do to a decision, and that it can be made again."""

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from forebay.v1.scaling_pb2 import ScalingPolicy, ScalingWindow
from services.autoscaler.scaling.rules import Rule
from services.autoscaler.scaling.windows import Windows, windows_of
from services.wire.cron import Cron
from tests.unit.scaling.walk import Walk, depth, scaling, seen

BERLIN = "Europe/Berlin"


def at(text: str, timezone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp()


def windows(*declared: tuple[str, str, int], timezone: str = BERLIN) -> Windows:
    made = [
        ScalingWindow(begin=begin, end=end, timezone=timezone, min_replicas=least)
        for begin, end, least in declared
    ]
    return Windows(windows_of(ScalingPolicy(windows=made)))


OFFICE = ("0 8 * * MON-FRI", "0 18 * * MON-FRI", 3)


@pytest.mark.parametrize(
    ("when", "least"),
    [
        ("2026-03-02 07:59:59", 0),
        ("2026-03-02 08:00:00", 3),
        ("2026-03-02 17:59:59", 3),
        ("2026-03-02 18:00:00", 0),
        ("2026-03-07 12:00:00", 0),
        # The first day of summer time.
        ("2026-03-30 07:59:59", 0),
        ("2026-03-30 08:00:00", 3),
    ],
)
def test_a_window_is_open_from_begin_to_end(when: str, least: int) -> None:
    assert windows(OFFICE).min_replicas(at(when)) == least


def test_a_window_stays_open_over_midnight_and_weekends() -> None:
    weekend = windows(("0 18 * * FRI", "0 8 * * MON", 2))
    assert weekend.min_replicas(at("2026-03-08 03:00")) == 2
    assert weekend.min_replicas(at("2026-03-09 08:00")) == 0


def test_of_several_open_windows_the_largest_counts() -> None:
    both = windows(OFFICE, ("0 12 * * *", "0 13 * * *", 7))
    assert [both.min_replicas(at(f"2026-03-02 {hour}:30")) for hour in (11, 12, 13)] == [3, 7, 3]


def test_begin_and_end_at_once_close() -> None:
    odd = windows(("0 * * * *", "0 12 * * *", 1))
    assert odd.min_replicas(at("2026-03-02 12:30")) == 0
    assert odd.min_replicas(at("2026-03-02 13:30")) == 1


def test_what_began_longer_ago_than_a_year_is_over() -> None:
    leap = windows(("0 0 29 2 *", "0 0 31 12 *", 1))
    assert leap.min_replicas(at("2028-03-01 00:00")) == 1
    assert leap.min_replicas(at("2029-01-01 00:00")) == 0
    forgotten = windows(("0 0 29 2 *", "0 0 28 2 *", 1))
    assert forgotten.min_replicas(at("2028-12-31 00:00")) == 1
    assert forgotten.min_replicas(at("2029-03-05 00:00")) == 0


def test_a_window_that_cannot_be_read_is_left_out() -> None:
    assert windows(("0 8 * * *", "0 9 * * *", 1), timezone="Mars").min_replicas(0) == 0


def test_cron_is_read_when_a_window_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    next_after = Cron.next_after

    def counted(self: Cron, instant_s: float) -> int | None:
        asked.append(instant_s)
        return next_after(self, instant_s)

    made, start_s = windows(OFFICE), at("2026-03-02 08:00")
    made.min_replicas(start_s)
    monkeypatch.setattr(Cron, "next_after", counted)
    for second in range(0, 36_000, 10):
        assert made.min_replicas(start_s + second) == 3
    assert not asked
    assert made.until_s(start_s) == start_s + 36_000
    # A wall clock that was put back.
    assert made.min_replicas(start_s - 1) == 0
    assert asked


def test_without_windows_nothing_ever_changes() -> None:
    assert Windows(()).min_replicas(1e9) == 0
    assert Windows(()).until_s(1e9) == math.inf


def test_a_window_that_opens_raises_the_target_at_once() -> None:
    walk = Walk(scaling(depth(1), max_replicas=5, upscale_delay=30), target=0)
    assert walk.on(10, seen()) == 0
    look = walk.look(seen(window_min=3))
    assert (look.outcome.target, look.outcome.rule) == (3, Rule.WINDOW)
    assert look.noteworthy
    assert "the open window's min_replicas is 3, so 0 becomes 3" in look.outcome.reason
    assert look.outcome.flip == "the end of the window, or its min_replicas below 3"


def test_a_window_that_closes_lets_go_after_the_delays() -> None:
    walk = Walk(
        scaling(depth(1), max_replicas=5, downscale_delay=20, downscale_to_zero_delay=50), target=3
    )
    assert walk.on(500, seen(window_min=3)) == 3
    assert walk.on(19, seen()) == 3
    assert walk.on(2, seen()) == 1
    assert walk.on(30, seen()) == 0


def test_the_maximum_is_the_last_word() -> None:
    walk = Walk(scaling(depth(1), max_replicas=2), target=0)
    look = walk.look(seen(window_min=9))
    assert (look.outcome.target, look.outcome.rule) == (2, Rule.WINDOW)


def test_a_window_holds_while_nothing_is_known() -> None:
    walk = Walk(scaling(depth(1), max_replicas=5), target=1)
    look = walk.look(seen(None, None, window_min=4))
    assert (look.outcome.target, look.outcome.rule) == (4, Rule.WINDOW)


def test_a_window_below_what_is_wanted_changes_nothing() -> None:
    walk = Walk(scaling(depth(1), min_replicas=2, max_replicas=9), target=2)
    for least in (0, 1, 2):
        look = walk.look(seen(window_min=least))
        assert (look.outcome.target, look.outcome.rule) == (2, Rule.MIN_REPLICAS)


def test_a_number_by_hand_holds_in_a_window() -> None:
    walk = Walk(scaling(depth(1), max_replicas=9), target=0)
    walk.declare(scaling(depth(1), max_replicas=9), pinned=1)
    assert walk.look(seen(window_min=5)).outcome.rule is Rule.MANUAL
    assert walk.scaler.target == 1


def test_a_new_deployment_begins_with_what_the_open_window_asks_for() -> None:
    walk = Walk(scaling(depth(1), max_replicas=9))
    look = walk.look(seen(window_min=5))
    assert look.outcome.target == 5
    assert look.outcome.reason == "a new deployment begins with the open window's min_replicas: 5"


def test_a_deployment_without_load_is_looked_at_when_a_window_changes() -> None:
    declared = scaling(depth(1), max_replicas=5, downscale_delay=0, downscale_to_zero_delay=0)
    declared.windows.add(begin=OFFICE[0], end=OFFICE[1], timezone=BERLIN, min_replicas=OFFICE[2])
    walk = Walk(declared, target=0)
    before_s, after_s = at("2026-03-02 07:00"), at("2026-03-02 08:00")
    walk.on(1000, seen(window_min=walk.scaler.window_min(before_s)))
    assert walk.scaler.settled(before_s)
    assert not walk.scaler.settled(after_s)
    assert walk.on(5, seen(window_min=walk.scaler.window_min(after_s))) == 3
