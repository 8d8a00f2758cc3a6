"""The checks of simulated runs find what they are there for."""

from dataclasses import replace

import pytest

from services.autoscaler.capacity import Demand, Gpu, Node, Share
from services.autoscaler.roster import Assigned
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.invariants import check_decision, check_mesh
from services.autoscaler.simulation.ownership import InvariantError
from services.autoscaler.simulation.service_times import ServiceTimes
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.world import World
from tests.simulation.scenario import declared


def world_with(values: dict[str, object]) -> tuple[World, Deployed]:
    world = World()
    world.mesh.add_node(Node("n1", 4, (Gpu("g"),)))
    deployed = Deployed(
        declared({"name": "model", **values}), ServiceTimes(5.0).draws(()), StartupModel(1.0)
    )
    world.lead()
    world.declare(deployed)
    return world, deployed


def assigned(number: int, gpus: float) -> Assigned:
    return Assigned(f"model-{number}", "model", 1, Share("n1", ("g",), Demand(gpus)))


def test_two_owners_of_a_gpu_are_found() -> None:
    world, _ = world_with({"replicas": 0})
    halves = {f"model-{i}": assigned(i, 0.5) for i in (1, 2)}
    world.mesh.assign("n1", halves, 1, 1)
    with pytest.raises(InvariantError, match=r"I7: 1\.2 of 1 g of node n1"):
        world.mesh.assign("n1", {**halves, "model-3": assigned(3, 0.2)}, 2, 1)


def test_a_lost_request_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    check_mesh(world.mesh)
    deployed.fates[0] = 0
    with pytest.raises(InvariantError, match="I1: the requests of model"):
        check_mesh(world.mesh)


def test_a_busy_replica_that_is_stopped_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    (replica,) = world.mesh.replicas.values()
    with pytest.raises(InvariantError, match="was stopped at 3 s while it worked on 1 requests"):
        world.mesh._stop(replica)


def test_a_decision_that_comes_out_differently_is_found() -> None:
    world, _ = world_with({"scaling": {"policy": "queue_depth", "min_replicas": 1}})
    world.run(3.0)
    _, decision = world.journal[0]
    check_decision(decision)
    decision.target_after += 1
    with pytest.raises(InvariantError, match="replay: deployments/model/decisions/1"):
        check_decision(decision)


def test_a_node_does_not_listen_to_an_older_term() -> None:
    world, _ = world_with({"replicas": 0})
    one = assigned(1, 0.5)
    world.mesh.assign("n1", {"model-1": one}, 1, 2)
    world.mesh.assign("n1", {"model-2": replace(one, replica_id="model-2")}, 2, 1)
    assert set(world.mesh.replicas) == {"model-1"}
