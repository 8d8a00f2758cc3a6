"""Ongoing requests keep the replicas that they fill; only a custom policy may decide otherwise."""

import pytest

from forebay.v1.scaling_pb2 import Policy
from services.autoscaler.scaling.rules import Rule
from tests.unit.scaling.walk import Walk, custom, depth, latency, scaling, seen, size


@pytest.mark.parametrize("policy", [depth(30), latency(60), size(3)])
def test_what_runs_keeps_its_replicas_however_few_would_do(policy: Policy) -> None:
    walk = Walk(scaling(policy, downscale_delay=10), target=4, slots=1)
    walk.on(100, seen(ongoing=4, service_time_s=10.0))
    look = walk.look(seen(ongoing=3, service_time_s=10.0))
    walk.on(100, seen(ongoing=3, service_time_s=10.0))
    look = walk.look(seen(ongoing=3, service_time_s=10.0))
    assert (look.outcome.target, look.outcome.rule) == (3, Rule.BUSY)
    assert "3 ongoing requests need 3 replicas" in look.outcome.reason
    walk.on(100, seen())
    assert walk.scaler.target == 1


def test_slots_that_are_free_do_not_keep_a_replica() -> None:
    walk = Walk(scaling(depth(30), downscale_delay=10), target=4, slots=8)
    walk.on(100, seen(ongoing=9))
    assert walk.scaler.target == 2


def test_a_custom_policy_may_take_busy_replicas_which_finish_what_they_have() -> None:
    walk = Walk(scaling(custom(), downscale_delay=10), target=4, slots=1)
    walk.on(100, seen(ongoing=4, custom=1.0))
    assert walk.scaler.target == 1
