"""What holds of every decision, whatever comes: random rules, loads, outages and starts."""

import random

import pytest

from forebay.v1.scaling_pb2 import Policy, ScalingPolicy
from services.autoscaler.scaling.rules import Rule
from services.autoscaler.scaling.scaler import Look
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


def any_policy(chance: random.Random) -> Policy:
    simple = [
        ongoing(chance.choice([0.5, 1, 4]), chance.choice([1, 10, 60])),
        depth(chance.choice([1, 3, 30])),
        latency(chance.choice([0.5, 30]), chance.choice([None, 2.0])),
        size(chance.choice([0, 1, 5])),
        custom(),
    ]
    return chance.choice([*simple, max_of(*chance.sample(simple, 2))])


def any_scaling(chance: random.Random) -> ScalingPolicy:
    least = chance.choice([0, 0, 1, 3])
    return scaling(
        any_policy(chance),
        min_replicas=least,
        max_replicas=least + chance.choice([1, 2, 20]),
        initial_replicas=least + chance.choice([0, 1]),
        upscaling_factor=chance.choice([0.3, 1, 1, 3]),
        downscaling_factor=chance.choice([0.3, 1, 1]),
        upscale_delay=chance.choice([0, 3, 30]),
        downscale_delay=chance.choice([0, 10, 120]),
        downscale_to_zero_delay=chance.choice([0, 5, 300]),
        advisory=chance.random() < 0.1,
    )


def any_signals(chance: random.Random, mood: str) -> Signals:
    if mood == "outage":
        return seen(None, chance.choice([None, 3]))
    load = {"idle": 0, "calm": chance.randrange(6), "busy": chance.randrange(90)}[mood]
    running = chance.randrange(load + 1)
    return seen(
        load - running,
        running,
        redelivered=chance.choice([0, 0, running]),
        service_time_s=chance.choice([None, 0.0, 0.4, 9.0]),
        starting=chance.choice([0, 0, 0, 1, 2]),
        custom=chance.choice([None, 0.0, 2.5, float("nan"), -1.0, 500.0]),
        custom_error=chance.choice(["", "", "", "raised ValueError"]),
        window_min=chance.choice([0, 0, 0, 0, 2, 8]),
    )


def check(walk: Walk, look: Look, target: int | None) -> None:
    """What must be true of one look."""
    outcome, rules = look.outcome, walk.scaler.rules.within(look.signals.window_min)
    assert outcome.before == target
    if rules.pinned is not None:
        assert (outcome.target, outcome.rule) == (rules.pinned, Rule.MANUAL)
        return
    assert rules.minimum <= outcome.target <= rules.maximum
    assert outcome.applied is not rules.advisory or target is None
    if target is None:
        return
    if rules.advisory:
        assert walk.scaler.target == target
    held = look.signals.held_load
    stays = rules.bounded(target)
    if held is None:
        assert outcome.target == stays
    elif held == 0 and not rules.custom:
        assert outcome.target <= stays
    elif not rules.custom and not look.signals.load and not look.signals.mean_load:
        # Repeated deliveries alone: the replicas there are, or the first one.
        assert outcome.target <= max(1, stays)
    if held:
        assert outcome.target > 0 or rules.custom or target == 0
    if outcome.target < target and target == stays:
        assert outcome.target >= min(target, look.signals.starting)
    assert len(outcome.state.fewest) <= 64
    assert len(outcome.state.most) <= 64


@pytest.mark.parametrize("seed", range(60))
def test_every_decision_keeps_what_scaling_promises(seed: int) -> None:
    chance = random.Random(seed)
    walk = Walk(
        any_scaling(chance),
        slots=chance.choice([1, 8]),
        target=chance.choice([None, 0, 1, 7]),
        known_before=chance.random() < 0.5,
    )
    mood = "calm"
    for _ in range(300):
        if chance.random() < 0.05:
            mood = chance.choice(["idle", "calm", "busy", "outage"])
        if chance.random() < 0.02:
            pinned = {"pinned": chance.randrange(9)} if chance.random() < 0.3 else {}
            walk.declare(any_scaling(chance), **pinned)
        walk.now_s += chance.choice([0.01, 0.5, 1, 1, 7, 200])
        target = walk.scaler.target
        check(walk, walk.look(any_signals(chance, mood)), target)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happened_no_load_ends_at_the_minimum(seed: int) -> None:
    chance = random.Random(seed)
    declared = any_scaling(chance)
    declared.advisory = False
    walk = Walk(declared, target=chance.choice([0, 1, 7]))
    for _ in range(50):
        walk.now_s += chance.choice([0.5, 1, 7])
        walk.look(any_signals(chance, chance.choice(["idle", "calm", "busy", "outage"])))
    assert walk.on(3000, seen(custom=0.0), tick_s=5) == declared.min_replicas
