"""Looking only when something can have changed decides as looking at every tick does."""

import random
from typing import Any

import pytest

from services.autoscaler.capacity import Node
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.pulse import Pulse
from services.autoscaler.simulation.service_times import log_normal
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.world import World
from tests.simulation.scenario import declared

POLICIES: dict[str, dict[str, Any]] = {
    "ongoing": {"policy": "ongoing_requests", "target_ongoing_requests": 2},
    "ongoing_odd": {
        "policy": "ongoing_requests",
        "target_ongoing_requests": 1.5,
        "look_back_period_s": 7.5,
        "upscaling_factor": 2,
    },
    "depth": {"policy": "queue_depth", "max_tasks_per_replica": 3, "downscaling_factor": 0.5},
    "size": {"policy": "queue_size", "queue_size": 2, "upscale_delay_s": 0},
    "latency": {"policy": "request_latency", "desired_latency_s": 4},
    "largest": {
        "policy": "max_of",
        "policies": [{"policy": "queue_depth"}, {"policy": "ongoing_requests"}],
    },
}


def journal(policy: dict[str, Any], seed: int, every_tick: bool) -> list[tuple[float, str, int]]:
    dice = random.Random(seed)
    deployment = declared(
        {
            "name": "model",
            "max_ongoing_requests": 4,
            "request_timeout_s": 40,
            "scaling": {
                "min_replicas": dice.choice([0, 0, 1]),
                "max_replicas": 6,
                "downscale_delay_s": dice.choice([8, 15, 40]),
                "downscale_to_zero_delay_s": dice.choice([0, 20, 60]),
                **policy,
            },
        }
    )
    world = World(Pulse(every_tick=every_tick), seed=seed)
    world.mesh.add_node(Node("n1", dice.choice([2, 20])))
    world.lead()
    times: list[float] = []
    at_s = 0.0
    while at_s < 1500:
        # Calm and busy by turns, on and beside the instants of ticks.
        rate = dice.choice([0.02, 0.3, 3.0])
        until_s = at_s + dice.uniform(20, 200)
        while at_s < until_s:
            at_s += dice.expovariate(rate)
            times.append(float(round(at_s)) if dice.random() < 0.2 else at_s)
    services = log_normal(dice.choice([0.2, 1.5]), 4.0).draws((seed,))
    deployed = Deployed(deployment, services, StartupModel(dice.choice([0.5, 6.0])))
    world.declare(deployed)
    world.replay(sorted(times), deployed)
    for _ in range(3):
        away_s = dice.uniform(100, 1400)
        world.mesh.agenda.at(away_s, world.see_nothing, True)
        world.mesh.agenda.at(away_s + dice.uniform(1, 40), world.see_nothing, False)
    world.mesh.agenda.at(dice.uniform(100, 1400), world.restart)
    world.mesh.agenda.at(700.0, world.mesh.lose_node, "n1", dice.random() < 0.5)
    world.mesh.agenda.at(700.0 + dice.uniform(1, 30), world.mesh.return_node, "n1")
    world.run(2000.0)
    assert not world.busy
    return [(d.now_s, d.reason, d.target_after) for _, d in world.journal]


@pytest.mark.parametrize("policy", POLICIES)
def test_sparing_looks_decide_the_same(policy: str) -> None:
    for seed in range(12):
        sparing = journal(POLICIES[policy], seed, every_tick=False)
        assert sparing == journal(POLICIES[policy], seed, every_tick=True), f"seed {seed}"
        assert len(sparing) > 3


def test_a_run_is_the_same_every_time() -> None:
    assert journal(POLICIES["size"], 5, False) == journal(POLICIES["size"], 5, False)
