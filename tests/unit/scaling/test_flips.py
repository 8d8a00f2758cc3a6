"""What a decision says would have led to another target does lead to one."""

import re
from dataclasses import replace

import pytest

from services.autoscaler.scaling.decide import decide
from services.autoscaler.scaling.rules import Outcome, Rule, Rules, State
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

FOREVER_S = 100_000.0


def later(signals: Signals, rules: Rules, state: State | None, now_s: float, for_s: float) -> int:
    """The target after so long of the same."""
    state = decide(signals, rules, state, now_s).state
    return decide(signals, rules, state, now_s + for_s).target


def in_the_end(signals: Signals, rules: Rules, target: int) -> int:
    """The target after the same for ever."""
    return later(signals, rules, State(target), 0, FOREVER_S)


def loaded(signals: Signals, load: float) -> Signals:
    """The signals with another load, the mean too."""
    return replace(
        signals, queued=int(load), ongoing=0, mean_load=float(load), mean_held_load=float(load)
    )


STEADY = [
    (depth(3), 7, {}),
    (latency(30), 7, {"service_time_s": 9.0}),
    (latency(30), 7, {"service_time_s": 40.0}),
    (size(2), 5, {}),
    (ongoing(3), 7, {}),
    (max_of(depth(3), size(2)), 7, {}),
]


@pytest.mark.parametrize(("policy", "load", "others"), STEADY)
def test_loads_beside_a_steady_target_lead_elsewhere(
    policy: object, load: int, others: dict[str, float]
) -> None:
    walk = Walk(scaling(policy), target=1)
    walk.on(500, seen(queued=load, **others))
    look = walk.look(seen(queued=load, **others))
    target = look.outcome.target
    assert look.outcome.rule is Rule.POLICY
    above = [float(x) for x in re.findall(r"above ([\d.]+)", look.outcome.flip)]
    within = [float(x) for x in re.findall(r"of ([\d.]+) or less", look.outcome.flip)]
    assert f"asks for more than {target}" in look.outcome.flip
    rules = walk.scaler.rules
    assert in_the_end(loaded(look.signals, min(above) + 1), rules, target) > target
    assert in_the_end(loaded(look.signals, min(within)), rules, target) < target
    assert in_the_end(loaded(look.signals, load), rules, target) == target


def test_at_a_bound_a_load_alone_is_not_said_to_be_enough() -> None:
    walk = Walk(scaling(depth(1), min_replicas=3, max_replicas=3), target=3)
    look = walk.look(seen(queued=3))
    assert look.outcome.flip == (
        "a load above 3, with max_replicas above 3, asks for more than 3; "
        "a load of 2 or less, with min_replicas below 3, for fewer"
    )


def flipped_now(walk: Walk, outcome: Outcome, signals: Signals, **rules: float) -> bool:
    """Whether other rules change the outcome, now or if it goes on like this."""
    changed = replace(walk.scaler.rules, **rules)
    before = outcome.before
    assert before is not None
    return in_the_end(signals, changed, before) != in_the_end(signals, walk.scaler.rules, before)


def test_bounds_that_bind_are_what_binds() -> None:
    walk = Walk(scaling(depth(1), min_replicas=2, max_replicas=4), target=3)
    for load, rule, said, other in (
        (50, Rule.MAX_REPLICAS, "max_replicas above 4", {"maximum": 5}),
        (0, Rule.MIN_REPLICAS, "min_replicas below 2", {"minimum": 1}),
    ):
        changed = walk.changes
        while walk.changes == changed:
            walk.now_s += 1
            look = walk.look(seen(queued=load))
        steady = walk.look(seen(queued=load))
        for outcome in (look.outcome, steady.outcome):
            assert outcome.rule is rule
            assert outcome.flip == said
            assert flipped_now(walk, outcome, look.signals, **other)


@pytest.mark.parametrize(
    ("target", "load", "rule", "setting"),
    [
        (2, 9, Rule.UPSCALE_DELAY, "upscale_delay_s"),
        (9, 2, Rule.DOWNSCALE_DELAY, "downscale_delay_s"),
        (1, 0, Rule.DOWNSCALE_TO_ZERO_DELAY, "to_zero_delay_s"),
    ],
)
def test_a_delay_ends_when_it_says_and_a_shorter_one_would_not_have_held(
    target: int, load: int, rule: Rule, setting: str
) -> None:
    walk = Walk(scaling(depth(1), upscale_delay=20), target=target)
    walk.on(400, seen(queued=target))
    walk.on(8, seen(queued=load))
    look = walk.look(seen(queued=load))
    assert look.outcome.rule is rule
    assert "or a shorter" in look.outcome.flip
    left_s = float(re.findall(r"another ([\d.]+) s", look.outcome.flip)[0])
    rules, state = walk.scaler.rules, look.outcome.state
    just_before = decide(look.signals, rules, state, walk.now_s + left_s - 0.1)
    assert just_before.target == target
    assert decide(look.signals, rules, state, walk.now_s + left_s).target == load
    shorter = replace(rules, **{setting: 0.0})
    assert decide(look.signals, shorter, look.before, walk.now_s).target == load


def test_the_last_replica_of_several_names_its_own_delay() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=10, downscale_to_zero_delay=60), target=4)
    walk.on(5, seen(queued=4))
    walk.now_s += 1
    walk.look(seen())
    walk.now_s += 10
    look = walk.look(seen())
    assert (look.outcome.target, look.outcome.rule) == (1, Rule.DOWNSCALE_TO_ZERO_DELAY)
    assert look.outcome.flip.startswith("another 50.0 s of wanting none")


@pytest.mark.parametrize(
    ("factor", "maximum", "said"),
    [
        (0.5, 100, "upscaling_factor of 1"),
        (0.5, 5, "upscaling_factor of 1 and max_replicas above 5"),
        (2.0, 100, "upscaling_factor of 1"),
    ],
)
def test_a_factor_that_binds_is_what_binds(factor: float, maximum: int, said: str) -> None:
    declared = scaling(depth(1), upscaling_factor=factor, max_replicas=maximum, upscale_delay=0)
    walk = Walk(declared, target=1)
    walk.look(seen(queued=1))
    look = walk.look(seen(queued=9))
    assert (look.outcome.rule, look.outcome.flip) == (Rule.GAIN, said)
    wider = replace(walk.scaler.rules, upscaling_factor=1.0)
    if "max_replicas" in said:
        assert decide(look.signals, wider, look.before, walk.now_s).target == look.outcome.target
        wider = replace(wider, maximum=maximum + 1)
    assert decide(look.signals, wider, look.before, walk.now_s).target != look.outcome.target


@pytest.mark.parametrize(
    ("policy", "others"),
    [
        (depth(3), {}),
        (size(1), {}),
        (latency(30), {"service_time_s": 10.0}),
        (custom(), {"custom": 4.0}),
    ],
)
def test_a_move_says_what_at_any_time_in_its_delay_would_have_changed_it(
    policy: object, others: dict[str, float]
) -> None:
    for first, then in ((1, 9), (40, 9)):
        walk = Walk(scaling(policy), target=4 if first == 1 else 30)
        extra = dict(others)
        if "custom" in extra:
            extra["custom"] = float(then)
        walk.on(
            200, seen(queued=first, **(extra | ({"custom": first} if "custom" in extra else {})))
        )
        changed = walk.changes
        while walk.changes == changed:
            walk.now_s += 1
            look = walk.look(seen(queued=then, **extra))
        assert look.outcome.rule is Rule.POLICY
        limit = float(re.findall(r"(?:above|of) ([\d.]+)", look.outcome.flip)[0])
        up = look.outcome.target > (look.outcome.before or 0)
        other = limit if up else limit + 1
        signals = loaded(look.signals, other)
        if "custom" in extra:
            signals = replace(signals, custom=other)
        again = decide(signals, walk.scaler.rules, look.before, walk.now_s)
        assert again.target != look.outcome.target
        assert "at any time within" in look.outcome.flip


def test_a_request_ends_the_hold_of_no_traffic() -> None:
    walk = Walk(scaling(ongoing(1, look_back_s=60), upscale_delay=0), target=1)
    walk.on(60, seen(queued=1))
    before = walk.scaler.target
    walk.declare(scaling(ongoing(1, look_back_s=60), upscale_delay=3600))
    walk.on(20, seen(queued=30))
    walk.declare(scaling(ongoing(1, look_back_s=60), upscale_delay=0))
    walk.now_s += 1
    look = walk.look(seen())
    assert (look.outcome.rule, look.outcome.flip) == (
        Rule.NO_TRAFFIC,
        "a request that waits or runs",
    )
    with_one = replace(look.signals, queued=1)
    assert decide(with_one, walk.scaler.rules, look.before, walk.now_s).target > (before or 0)


def test_starting_replicas_that_get_ready_end_their_hold() -> None:
    walk = Walk(scaling(depth(1), downscale_delay=10), target=3)
    walk.on(60, seen(starting=3))
    look = walk.look(seen(starting=3))
    assert look.outcome.rule is Rule.STARTING
    assert in_the_end(replace(look.signals, starting=0), walk.scaler.rules, 3) < 3


def test_no_request_would_have_left_a_deployment_at_zero() -> None:
    walk = Walk(scaling(depth(1)), target=0)
    look = walk.look(seen(queued=2))
    assert look.outcome.flip == "no request that waits or runs"
    idle = decide(seen(), walk.scaler.rules, look.before, walk.now_s)
    assert idle.target == 0
