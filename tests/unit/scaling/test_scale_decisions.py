"""Gain, bounds, delays, from zero and back to it."""

import random

import pytest

from services.autoscaler.scaling.rules import Rule
from tests.unit.scaling.walk import (
    Walk,
    custom,
    depth,
    duration,
    latency,
    max_of,
    ongoing,
    scaling,
    seen,
    size,
)

NO_DELAYS = {"upscale_delay": 0, "downscale_delay": 0, "downscale_to_zero_delay": 0}


def test_a_new_deployment_begins_with_its_minimum() -> None:
    look = Walk(scaling(depth(1), min_replicas=2)).look(seen(queued=50))
    assert (look.outcome.target, look.outcome.rule) == (2, Rule.INITIAL)
    assert look.noteworthy


def test_a_new_deployment_begins_with_its_initial_replicas_and_leaves_them_after_a_delay() -> None:
    walk = Walk(scaling(depth(1), initial_replicas=3, downscale_delay=20))
    assert walk.look(seen()).outcome.target == 3
    assert walk.on(19, seen()) == 3
    assert walk.on(2, seen()) == 1
    assert walk.on(300, seen()) == 0


def test_ten_requests_at_once_start_four_replicas_at_once_and_none_is_left_in_the_end() -> None:
    declared = scaling(size(1), max_replicas=4, downscale_delay=30, downscale_to_zero_delay=30)
    walk = Walk(declared, target=0)
    look = walk.look(seen(queued=10))
    assert (look.outcome.target, look.outcome.rule) == (4, Rule.MAX_REPLICAS)
    assert look.outcome.flip == "max_replicas above 4"
    assert walk.on(100, seen(queued=2, ongoing=4)) == 4
    assert walk.on(29, seen()) == 4
    assert walk.on(2, seen()) == 0
    assert walk.changes == 2


def test_two_more_requests_start_a_second_replica_and_two_alone_do_not() -> None:
    walk = Walk(scaling(size(2), upscale_delay=3), target=0)
    assert walk.look(seen(queued=2)).outcome.target == 1
    assert walk.on(60, seen(queued=1, ongoing=1)) == 1
    assert walk.on(4, seen(queued=3, ongoing=1)) == 2


def test_thirty_one_tasks_are_for_two_replicas_and_never_more_than_the_maximum() -> None:
    walk = Walk(scaling(depth(30), max_replicas=3), target=1)
    assert walk.on(10, seen(queued=31)) == 2
    assert walk.on(10, seen(queued=61)) == 3
    assert walk.on(10, seen(queued=6100)) == 3
    assert walk.look(seen(queued=6100)).outcome.rule is Rule.MAX_REPLICAS


def test_three_requests_of_a_minute_get_three_replicas_but_the_maximum_wins_over_latency() -> None:
    assert Walk(scaling(latency(30)), target=0).look(seen(queued=3)).outcome.target == 3
    walk = Walk(scaling(latency(30), max_replicas=5), target=1)
    assert walk.on(5, seen(queued=2, ongoing=1, service_time_s=60.0)) == 3
    assert walk.on(60, seen(queued=200, ongoing=3, service_time_s=60.0)) == 5
    look = walk.look(seen(queued=200, ongoing=3, service_time_s=60.0))
    assert "max_replicas is 5, so 203 becomes 5" in look.outcome.reason


def test_replicas_follow_users_who_wait_for_each_answer() -> None:
    walk = Walk(scaling(ongoing(1), max_replicas=200, downscale_delay=60), target=0)
    for users in (10, 50, 100, 10):
        assert walk.on(120, seen(ongoing=users)) == pytest.approx(users, rel=0.1)
    assert walk.on(60 + 12, seen()) <= 1
    assert walk.on(300, seen()) == 0


@pytest.mark.parametrize("tick_s", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("delay_s", [0.0, 5.0, 60.0])
def test_delays_are_seconds_whatever_the_tick(tick_s: float, delay_s: float) -> None:
    declared = scaling(
        depth(1),
        upscale_delay=delay_s,
        downscale_delay=2 * delay_s,
        downscale_to_zero_delay=3 * delay_s,
    )
    walk = Walk(declared, target=1)
    walk.on(200, seen(ongoing=1), tick_s)
    for load, changed, wait_s in ((5, 5, delay_s), (2, 2, 2 * delay_s), (1, 1, 2 * delay_s)):
        before = walk.scaler.target
        begun_s = walk.now_s
        while walk.scaler.target == before:
            walk.on(tick_s, seen(ongoing=load), tick_s)
        # Known from the first tick that shows it, and a tick may miss the end by one.
        assert wait_s + tick_s - 1e-6 <= walk.now_s - begun_s <= wait_s + 2 * tick_s + 1e-6
        assert walk.scaler.target == changed
    begun_s = walk.now_s
    while walk.scaler.target:
        walk.on(tick_s, seen(), tick_s)
    assert 3 * delay_s <= walk.now_s - begun_s <= 3 * delay_s + 2 * tick_s


def test_a_spike_shorter_than_the_delay_starts_nothing() -> None:
    walk = Walk(scaling(depth(1), upscale_delay=3), target=1)
    walk.on(60, seen(ongoing=1))
    assert walk.on(2, seen(queued=50)) == 1
    walk.on(60, seen(ongoing=1))
    assert walk.changes == 0


def test_as_many_more_start_as_were_wanted_throughout_the_delay() -> None:
    walk = Walk(scaling(depth(1), upscale_delay=3), target=1)
    walk.on(10, seen(ongoing=1))
    walk.on(2, seen(queued=4))
    walk.on(1, seen(queued=90))
    assert walk.on(1, seen(queued=90)) == 4
    look = walk.look(seen(queued=90))
    assert look.outcome.rule is Rule.UPSCALE_DELAY
    assert walk.on(3, seen(queued=90)) == 90


def test_a_part_of_what_is_wanted_names_the_delay_of_the_rest() -> None:
    walk = Walk(scaling(depth(1), upscale_delay=3, max_replicas=50), target=1)
    walk.on(10, seen(ongoing=1))
    walk.on(3, seen(queued=4))
    walk.now_s += 1
    look = walk.look(seen(queued=90))
    assert (look.outcome.target, look.outcome.rule) == (4, Rule.UPSCALE_DELAY)
    assert look.outcome.flip == "another 3.0 s of wanting more, or a shorter upscale_delay_s"


def test_no_fewer_stay_than_were_wanted_within_the_delay() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=100), target=8)
    walk.on(50, seen(ongoing=8))
    walk.on(60, seen(ongoing=2))
    walk.on(1, seen(ongoing=5))
    assert walk.on(40, seen(ongoing=2)) == 5
    assert walk.on(61, seen(ongoing=2)) == 2


def test_the_last_replica_goes_by_its_own_delay_and_the_others_by_theirs() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=10, downscale_to_zero_delay=100), target=5)
    walk.on(5, seen(ongoing=5))
    assert walk.on(12, seen()) == 1
    assert walk.look(seen()).outcome.rule is Rule.DOWNSCALE_TO_ZERO_DELAY
    assert walk.on(85, seen()) == 1
    assert walk.on(5, seen()) == 0


def test_a_shorter_delay_to_zero_does_not_overrule_the_other() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=100, downscale_to_zero_delay=10), target=5)
    walk.on(5, seen(ongoing=5))
    assert walk.on(90, seen()) == 5
    assert walk.on(12, seen()) == 0


def test_a_longer_delay_holds_for_what_was_wanted_before_it_was_declared() -> None:
    policy = depth(1)
    short = scaling(policy, downscale_delay=100, downscale_to_zero_delay=100)
    walk = Walk(short, target=5)
    walk.on(300, seen(ongoing=5))
    walk.on(99, seen(ongoing=1))
    walk.declare(scaling(policy, downscale_delay=600, downscale_to_zero_delay=600))
    assert walk.on(490, seen(ongoing=1)) == 5
    assert walk.on(120, seen(ongoing=1)) == 1


@pytest.mark.parametrize(
    ("factor", "load", "replicas"),
    [(0.5, 9, 5), (0.01, 9, 2), (1.0, 9, 9), (2.0, 3, 5), (100.0, 2, 20)],
)
def test_the_upscaling_factor_never_rounds_to_no_step(
    factor: float, load: int, replicas: int
) -> None:
    declared = scaling(depth(1), upscaling_factor=factor, max_replicas=20, upscale_delay=0)
    walk = Walk(declared, target=1)
    walk.look(seen(ongoing=1))
    assert walk.on(1, seen(queued=load)) == replicas


@pytest.mark.parametrize(("factor", "replicas"), [(0.5, 6), (0.01, 9), (1.0, 2)])
def test_the_downscaling_factor_never_rounds_to_no_step(factor: float, replicas: int) -> None:
    walk = Walk(scaling(depth(1), downscaling_factor=factor, **NO_DELAYS), target=10)
    walk.look(seen(ongoing=10))
    assert walk.on(1, seen(ongoing=2)) == replicas


def test_what_a_factor_overshoots_lasts_its_delay() -> None:
    declared = scaling(depth(1), upscaling_factor=3, downscale_delay=60)
    walk = Walk(declared, target=1)
    walk.on(200, seen(ongoing=1))
    assert walk.on(5, seen(ongoing=3)) == 7
    assert walk.on(50, seen(ongoing=3)) == 7
    assert walk.on(15, seen(ongoing=3)) == 3


@pytest.mark.parametrize("policy", [ongoing(1, 1), depth(1), latency(0.1), size(0)])
@pytest.mark.parametrize("factor", [1.0, 50.0])
def test_bounds_have_the_last_word(policy: object, factor: float) -> None:
    declared = scaling(policy, min_replicas=2, max_replicas=4, upscaling_factor=factor, **NO_DELAYS)
    walk = Walk(declared, target=3)
    assert walk.on(5, seen(queued=10_000, service_time_s=60.0)) == 4
    assert walk.on(20, seen()) == 2


@pytest.mark.parametrize(
    ("bounds", "target", "rule"),
    [
        ({"max_replicas": 3}, 3, Rule.MAX_REPLICAS),
        ({"min_replicas": 7}, 7, Rule.MIN_REPLICAS),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_bounds_that_change_hold_at_once(
    bounds: dict[str, float], target: int, rule: Rule, known: bool
) -> None:
    walk = Walk(scaling(depth(1)), target=5)
    walk.on(30, seen(ongoing=5))
    walk.declare(scaling(depth(1), **bounds))
    look = walk.look(seen(ongoing=5) if known else seen(queued=None))
    assert (look.outcome.target, look.outcome.rule) == (target, rule)
    assert f"5 to {target}: " in look.outcome.reason
    assert f"replicas is {target}, so 5 becomes {target}" in look.outcome.steps[1].sentence


def test_another_policy_keeps_the_target() -> None:
    walk = Walk(scaling(depth(1)), target=5)
    walk.on(200, seen(ongoing=5))
    walk.declare(scaling(ongoing(1, look_back_s=30)))
    look = walk.look(seen(ongoing=5))
    assert (look.outcome.target, look.outcome.rule) == (5, Rule.FILLING_WINDOW)
    assert walk.on(29, seen(ongoing=20)) == 5
    assert walk.on(10, seen(ongoing=20)) > 5


def test_a_pin_holds_until_it_is_released_and_what_follows_has_its_delays() -> None:
    declared = scaling(ongoing(1), min_replicas=1, max_replicas=9, downscale_delay=60)
    walk = Walk(declared, target=1)
    walk.on(100, seen(ongoing=1))
    walk.declare(declared, pinned=7)
    look = walk.look(seen(ongoing=1))
    assert (look.outcome.target, look.outcome.rule) == (7, Rule.MANUAL)
    assert walk.on(500, seen(queued=500)) == 7
    walk.on(20, seen(ongoing=1))
    walk.declare(declared)
    assert walk.on(59, seen(ongoing=1)) == 7
    assert walk.on(10, seen(ongoing=1)) == 2


def test_a_pin_outside_the_bounds_holds_and_its_release_returns_within_them() -> None:
    declared = scaling(depth(1), max_replicas=4)
    walk = Walk(declared, target=1)
    walk.declare(declared, pinned=9)
    assert walk.on(5, seen()) == 9
    walk.declare(declared)
    assert walk.on(1, seen()) == 4


def test_a_fixed_number_stays_and_a_new_policy_takes_over_from_it() -> None:
    walk = Walk(None, replicas=3)
    look = walk.look(seen(queued=99))
    assert (look.outcome.target, look.outcome.rule) == (3, Rule.FIXED)
    walk.declare(None, replicas=5)
    assert walk.on(1, seen(queued=None)) == 5
    walk.declare(scaling(depth(1), downscale_delay=10))
    assert walk.on(9, seen(ongoing=2)) == 5
    assert walk.on(3, seen(ongoing=2)) == 2


def test_the_first_request_starts_replicas_at_once_whatever_the_delay() -> None:
    for policy in (ongoing(1), depth(1), latency(30), size(0), max_of(depth(1), ongoing(1))):
        walk = Walk(scaling(policy, upscale_delay=3600), target=0)
        walk.on(5, seen())
        look = walk.look(seen(queued=3))
        assert (look.outcome.target, look.outcome.rule) == (3, Rule.FROM_ZERO)
        assert look.outcome.reason.startswith("from zero at once: 3 requests wait or run; ")


def test_from_zero_counts_as_wanted_for_the_delay_of_going_down() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=50, downscale_to_zero_delay=50), target=0)
    walk.on(1000, seen())
    assert walk.look(seen(queued=5)).outcome.target == 5
    assert walk.on(49, seen()) == 5
    assert walk.on(2, seen()) == 0


def test_a_request_that_comes_at_the_very_end_of_the_delay_keeps_the_last_replica() -> None:
    walk = Walk(scaling(ongoing(1), downscale_to_zero_delay=60), target=1)
    walk.look(seen())
    walk.on(59, seen())
    assert walk.on(1, seen(queued=1)) == 1
    assert walk.changes == 0


@pytest.mark.parametrize("policy", [ongoing(1), depth(1), latency(30), size(0)])
def test_the_minimum_is_reached_without_traffic_from_any_target(policy: object) -> None:
    for minimum in (0, 1, 3):
        walk = Walk(scaling(policy, min_replicas=minimum), target=50, known_before=True)
        assert walk.on(500, seen()) == minimum
        assert walk.on(10_000, seen(), tick_s=50) == minimum


def test_nothing_starts_without_traffic_even_if_the_mean_asks_for_it() -> None:
    walk = Walk(scaling(ongoing(1, look_back_s=60), upscale_delay=5), target=1)
    walk.on(60, seen())
    walk.on(4, seen(queued=600))
    look = walk.look(seen())
    assert look.outcome.rule is Rule.NO_TRAFFIC
    assert walk.on(60, seen()) == 1
    assert walk.changes == 0


@pytest.mark.parametrize(
    ("policy", "load", "service_s"),
    [
        (ongoing(1), 100, 1.0),
        (ongoing(40), 80, 1.0),
        (ongoing(8), 8, 1.0),
        (ongoing(1, look_back_s=1), 2, 1.0),
        (depth(30), 30, 1.0),
        (size(1), 2, 1.0),
        (latency(30), 8, 10.0),
        (latency(30), 6, 15.0),
    ],
)
def test_steady_load_settles_on_one_count(policy: object, load: int, service_s: float) -> None:
    chance = random.Random(7)
    walk = Walk(scaling(policy), target=2)

    def noisy() -> object:
        return seen(
            ongoing=round(load * chance.uniform(0.95, 1.05)),
            service_time_s=service_s * chance.uniform(0.95, 1.05),
        )

    walk.on(500, noisy)
    settled = walk.changes
    walk.on(10_000, noisy, tick_s=2)
    assert walk.changes - settled <= 1


def test_a_custom_policy_decides_without_traffic_too() -> None:
    walk = Walk(scaling(custom(), upscale_delay=0), target=0)
    assert walk.on(20, seen(custom=0.0)) == 0
    assert walk.on(2, seen(custom=2.0)) == 2
    assert Walk(scaling(custom()), target=0).look(seen(queued=5, custom=0.0)).outcome.target == 0


def test_durations_of_the_api_are_seconds() -> None:
    assert duration(2.5).ToMilliseconds() == 2500
