"""What holds a target, and what never moves it."""

import math

import pytest

from services.autoscaler.scaling.rules import Rule
from services.autoscaler.scaling.signals import Signals
from tests.unit.scaling.walk import (
    Walk,
    custom,
    depth,
    latency,
    max_of,
    ongoing,
    scaling,
    seen,
    size,
)

POLICIES = [ongoing(1), depth(1), latency(30), size(0), max_of(depth(1), ongoing(1))]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("queued", "running"), [(None, 0), (0, None), (None, None), (500, None)])
def test_signals_that_are_not_known_move_nothing_and_are_named(
    policy: object, queued: int | None, running: int | None
) -> None:
    walk = Walk(scaling(policy), target=4)
    walk.on(30, seen(ongoing=4))
    assert walk.on(5000, seen(queued, running), tick_s=10) == 4
    reason = walk.look(seen(queued, running)).outcome.reason
    assert reason.endswith("not known, so 4 replicas stay")
    for name, value in (("queued", queued), ("ongoing", running)):
        assert (name in reason) == (value is None)
    assert [d.rule for d in walk.noted].count(Rule.UNKNOWN_SIGNALS) == 1


def test_an_outage_at_zero_stays_at_zero_and_below_the_minimum_reaches_it() -> None:
    assert Walk(scaling(depth(1)), target=0).on(100, seen(None, None)) == 0
    walk = Walk(scaling(depth(1), min_replicas=2), target=0)
    assert walk.look(seen(None, None)).outcome.target == 2


def test_delays_begin_anew_after_an_outage() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=60, upscale_delay=10), target=4)
    walk.on(55, seen(ongoing=1))
    walk.on(1, seen(None, None))
    assert walk.on(60, seen(ongoing=1)) == 4
    assert walk.on(2, seen(ongoing=1)) == 1
    walk.on(9, seen(ongoing=9))
    walk.on(1, seen(None, None))
    assert walk.on(10, seen(ongoing=9)) == 1


def test_the_mean_of_before_an_outage_says_nothing_after_it() -> None:
    walk = Walk(scaling(ongoing(1), downscale_delay=0, upscale_delay=0), target=5)
    walk.on(30, seen(ongoing=5))
    walk.on(1, seen(None, None))
    look = walk.look(seen(ongoing=1))
    assert look.outcome.rule is Rule.FILLING_WINDOW
    assert look.signals.mean_load is None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_restart_changes_nothing_by_itself(policy: object) -> None:
    walk = Walk(scaling(policy), target=4, known_before=True)
    assert walk.on(3600, seen(ongoing=4), tick_s=2) == 4
    assert walk.changes == 0


def test_after_a_restart_the_load_decides_once_the_window_is_full() -> None:
    walk = Walk(scaling(ongoing(1), upscale_delay=0), target=4, known_before=True)
    walk.look(seen(ongoing=40))
    assert walk.on(9, seen(ongoing=40)) == 4
    assert walk.on(1, seen(ongoing=40)) == 40
    down = Walk(scaling(ongoing(1), downscale_delay=60), target=4, known_before=True)
    assert down.on(69, seen(ongoing=1)) == 4
    assert down.on(3, seen(ongoing=1)) == 2


def test_a_restart_at_zero_still_answers_the_first_request_at_once() -> None:
    walk = Walk(scaling(ongoing(1)), target=0, known_before=True)
    assert walk.look(seen(queued=2)).outcome.target == 2


def test_a_start_longer_than_the_idle_time_gets_its_chance() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=5, downscale_to_zero_delay=30), target=0)
    walk.look(seen(queued=1))
    # The caller has given up; the replica takes ten minutes to start.
    assert walk.on(600, seen(starting=1, assigned=1)) == 1
    look = walk.look(seen(starting=1, assigned=1))
    assert look.outcome.rule is Rule.STARTING
    assert "a replica that is starting had no chance yet" in look.outcome.reason
    assert walk.on(29, seen(ready=1, assigned=1)) == 1
    assert walk.on(3, seen(ready=1, assigned=1)) == 0


def test_replicas_beside_the_starting_ones_may_go_but_one_that_is_ready() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=10), target=6)
    walk.on(5, seen(ongoing=6, ready=4, starting=2))
    walk.on(11, seen(ready=4, starting=2))
    assert walk.scaler.target == 3
    assert walk.look(seen(ready=1, starting=2)).outcome.rule is Rule.STARTING


def test_starting_replicas_are_not_taken_for_busy_ones() -> None:
    walk = Walk(scaling(depth(9), downscale_delay=0), target=4)
    walk.on(5, seen(ongoing=3, ready=2, starting=2))
    # Two are busy and two start: the policy's one would take either.
    assert walk.scaler.target == 4
    walk.on(5, seen(ongoing=1, ready=4))
    assert walk.scaler.target == 1


def test_starting_replicas_count_as_coming() -> None:
    walk = Walk(scaling(depth(1), upscale_delay=0), target=0)
    walk.look(seen(queued=3))
    assert walk.on(600, seen(queued=3, starting=3)) == 3


def test_an_unstartable_replica_neither_multiplies_nor_stays() -> None:
    walk = Walk(scaling(depth(2), downscale_delay=10, downscale_to_zero_delay=20), target=0)
    walk.look(seen(queued=4))
    assert walk.on(3600, seen(queued=4, assigned=2, unstartable=2), tick_s=5) == 2
    assert walk.on(22, seen(assigned=2, unstartable=2)) == 0


def test_redelivered_requests_hold_replicas_and_start_none() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=10), target=2)
    walk.on(20, seen(ongoing=2))
    assert walk.on(500, seen(ongoing=9, redelivered=8)) == 2
    assert walk.look(seen(ongoing=9, redelivered=8)).outcome.rule is Rule.POLICY
    walk = Walk(scaling(ongoing(1), downscale_delay=10), target=2)
    assert walk.on(500, seen(ongoing=9, redelivered=8)) == 2
    assert walk.on(21, seen(ongoing=1)) == 2
    assert (
        Walk(scaling(depth(1)), target=0).look(seen(ongoing=9, redelivered=9)).outcome.target == 1
    )


def test_poison_is_no_load() -> None:
    walk = Walk(scaling(ongoing(1)), target=0)
    assert walk.on(600, seen(poison=500)) == 0


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        ({"custom_error": "raised ValueError: no"}, "mine:replicas: raised ValueError: no"),
        ({"custom": math.nan}, "mine:replicas: returned nan, which is no count"),
        ({"custom": math.inf}, "mine:replicas: returned inf, which is no count"),
        ({"custom": -3.0}, "mine:replicas: returned -3, which is no count"),
        ({}, "mine:replicas: no answer yet"),
    ],
)
@pytest.mark.parametrize("policy", [custom(), max_of(depth(1), custom())])
def test_a_custom_policy_without_an_answer_holds_and_is_named(
    policy: object, signals: dict[str, object], said: str
) -> None:
    walk = Walk(scaling(policy, upscale_delay=0, downscale_delay=0), target=3)
    walk.on(20, seen(queued=3, custom=3.0))
    for load in (0, 90):
        look = walk.look(seen(queued=load, **signals))
        assert (look.outcome.target, look.outcome.rule) == (3, Rule.CUSTOM_FAILED)
        assert look.outcome.reason == f"{said}, so 3 replicas stay"
    assert walk.noted[-1].rule == Rule.CUSTOM_FAILED


def test_a_failing_custom_policy_still_starts_one_replica_for_the_first_request() -> None:
    walk = Walk(scaling(custom()), target=0)
    look = walk.look(seen(queued=9, custom_error="took longer than 1 s"))
    assert (look.outcome.target, look.outcome.rule) == (1, Rule.FROM_ZERO)
    assert "took longer than 1 s; at least one" in look.outcome.reason


def test_advice_is_told_and_not_taken() -> None:
    walk = Walk(scaling(depth(1), advisory=True), target=2)
    walk.on(10, seen(ongoing=2))
    assert walk.on(30, seen(queued=9)) == 2
    told = walk.noted[-1]
    assert (told.target_before, told.target_after, told.applied) == (2, 9, False)
    assert [d.target_after for d in walk.noted].count(9) == 1
    walk.on(120, seen(ongoing=2))
    walk.on(30, seen(queued=9))
    assert [d.target_after for d in walk.noted].count(9) == 2


def test_advice_at_zero_starts_nothing() -> None:
    walk = Walk(scaling(depth(1), advisory=True), target=0)
    assert walk.on(100, seen(queued=9)) == 0
    assert [d.target_after for d in walk.noted] == [9]


def test_a_refusal_is_told_once_while_it_goes_on() -> None:
    walk = Walk(scaling(depth(1), max_replicas=2, upscale_delay=10), target=2)
    walk.on(3600, seen(queued=50))
    assert [d.rule for d in walk.noted] == [Rule.MAX_REPLICAS]


def test_a_journal_of_a_wavering_load_stays_small() -> None:
    walk = Walk(scaling(depth(1), max_replicas=3), target=2)
    for _ in range(600):
        walk.on(1, seen(queued=3))
        walk.on(1, seen(queued=1))
    assert walk.changes == 0
    assert len(walk.noted) <= 2 * 1200 / 60


def test_a_second_outage_soon_after_the_first_is_told_when_it_lasts() -> None:
    walk = Walk(scaling(depth(1)), target=2)
    walk.on(20, seen(ongoing=2))
    walk.on(3, Signals())
    walk.on(17, seen(ongoing=2))
    walk.on(300, Signals())
    told = [d.now_s for d in walk.noted if d.rule == Rule.UNKNOWN_SIGNALS]
    # At once the first time; the second time as soon as the first is a minute ago.
    assert len(told) == 2
    assert 59 <= told[1] - told[0] <= 61


def test_another_error_of_a_custom_policy_is_told_too() -> None:
    walk = Walk(scaling(custom()), target=2)
    walk.on(100, seen(ongoing=2, custom_error="took longer than 1 s"))
    walk.on(100, seen(ongoing=2, custom_error="raised ValueError: no"))
    assert len([d for d in walk.noted if d.rule == Rule.CUSTOM_FAILED]) == 2


def test_a_new_deployment_has_a_full_window_of_nothing() -> None:
    walk = Walk(scaling(ongoing(2), initial_replicas=1))
    walk.on(2, Signals())
    walk.on(20, seen(ongoing=2, ready=1))
    assert Rule.FILLING_WINDOW not in {d.rule for d in walk.noted}


def test_nobody_waits_for_a_delay_while_the_first_replica_starts() -> None:
    walk = Walk(scaling(size(1), max_replicas=4, upscale_delay=30), target=0)
    walk.look(seen(queued=1))
    assert walk.on(1, seen(queued=10, starting=1)) == 4
    # With one that answers, the delay counts.
    walk = Walk(scaling(size(1), max_replicas=4, upscale_delay=30), target=1)
    walk.on(40, seen(ongoing=1, ready=1))
    assert walk.on(20, seen(queued=9, ongoing=1, ready=1)) == 1
    assert walk.on(20, seen(queued=9, ongoing=1, ready=1)) == 4


def test_a_replica_that_does_not_start_is_not_multiplied_by_waiting_requests() -> None:
    walk = Walk(scaling(size(1), max_replicas=4, upscale_delay=30), target=1)
    walk.on(40, seen(ongoing=1, ready=1))
    assert walk.on(20, seen(queued=9, unstartable=1)) == 1
