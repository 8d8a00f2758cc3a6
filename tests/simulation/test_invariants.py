"""The checks of simulated runs find what they are there for."""

from dataclasses import replace

import pytest

from services.autoscaler.capacity import Demand, Gpu, Node, Share
from services.autoscaler.roster import Assigned
from services.autoscaler.simulation.deployed import Deployed, Fate
from services.autoscaler.simulation.invariants import check_decision, check_mesh
from services.autoscaler.simulation.ownership import InvariantError
from services.autoscaler.simulation.service_times import ServiceTimes
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.world import World
from services.autoscaler.view import State
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


def test_two_agents_that_use_one_gpu_are_found() -> None:
    world, _ = world_with({"replicas": 0})
    world.mesh.add_node(Node("n2", 4, (Gpu("g"),)))
    world.mesh.assign("n1", {"model-1": assigned(1, 0.5)}, 1, 1)
    second = replace(assigned(2, 0.5), share=Share("n2", ("g",), Demand(0.5)))
    with pytest.raises(InvariantError, match="I7: GPU g is used through node n2 and node n1"):
        world.mesh.assign("n2", {"model-2": second}, 1, 1)


def test_a_lost_request_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    check_mesh(world.mesh)
    deployed.fates[0] = 0
    with pytest.raises(InvariantError, match="I1: the requests of model"):
        check_mesh(world.mesh)


def test_a_request_that_ends_twice_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    (replica,) = world.mesh.replicas.values()
    deployed.fates[0] = Fate.SERVED
    with pytest.raises(InvariantError, match="I1, I3: request 0 of model ended as SERVED"):
        world.mesh._done(deployed, replica, 0, replica.life)


def test_an_answer_to_what_was_never_delivered_is_found() -> None:
    world, deployed = world_with({"replicas": 0})
    world.mesh.arrive(deployed)
    with pytest.raises(InvariantError, match=r"I2: request 0 .* was QUEUED before"):
        world.mesh._settle(deployed, 0, Fate.SERVED)


def test_an_answer_of_a_replica_that_does_not_work_on_it_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    (replica,) = world.mesh.replicas.values()
    replica.ongoing.clear()
    with pytest.raises(InvariantError, match="I2: request 0 of model was answered at 8 s by"):
        world.run(20.0)


def test_an_answer_of_a_replica_that_starts_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    (replica,) = world.mesh.replicas.values()
    replica.state = State.STARTING
    with pytest.raises(InvariantError, match=r"I2: .*, which is STARTING"):
        world.run(20.0)


def test_a_request_that_outlives_its_deadline_is_found() -> None:
    world, deployed = world_with({"replicas": 0, "request_timeout_s": 10})
    world.mesh.arrive(deployed)
    world.mesh.agenda.heap.clear()
    world.run(10.0)
    with pytest.raises(InvariantError, match=r"I4: request 0 of model waits at 11 s, .* at 10 s"):
        world.run(11.0)


def test_a_request_that_begins_after_its_deadline_is_found() -> None:
    world, deployed = world_with({"replicas": 0, "request_timeout_s": 10})
    world.mesh.arrive(deployed)
    world.mesh.agenda.heap.clear()
    world.run(10.0)
    world.change(declared({"name": "model", "replicas": 1, "request_timeout_s": 20}))
    with pytest.raises(InvariantError, match=r"I4: request 0 of model began at .*at 10 s"):
        world.run(20.0)


def test_what_waits_again_leaves_by_its_deadline() -> None:
    world, deployed = world_with({"replicas": 1, "request_timeout_s": 7})
    world.run(3.0)
    world.mesh.arrive(deployed)
    # Its delivery is made again after 10 s: too late.
    world.mesh.lose_node("n1", dies=True)
    world.run(5.0)
    world.mesh.return_node("n1")
    world.run(30.0)
    assert (deployed.left, deployed.served, deployed.held) == (1, 0, 0)


def test_what_waits_again_and_is_not_taken_leaves_by_its_deadline() -> None:
    world, deployed = world_with({"replicas": 1, "request_timeout_s": 12})
    world.run(3.0)
    world.mesh.arrive(deployed)
    world.mesh.lose_node("n1", dies=True)
    world.run(14.0)
    assert list(deployed.redeliver) == [0]
    world.run(16.0)
    assert (deployed.left, deployed.served, deployed.held) == (1, 0, 0)


def test_a_request_that_waits_again_beyond_its_deadline_is_found() -> None:
    world, deployed = world_with({"replicas": 1, "request_timeout_s": 12})
    world.run(3.0)
    world.mesh.arrive(deployed)
    world.mesh.lose_node("n1", dies=True)
    world.run(14.0)
    world.mesh.agenda.heap.clear()
    with pytest.raises(InvariantError, match="I4: request 0 of model waits at 16 s"):
        world.run(16.0)


def test_a_queue_above_its_bound_is_found() -> None:
    world, deployed = world_with({"replicas": 0, "max_queued_requests": 2})
    deployed.max_held = 3
    for _ in range(3):
        world.mesh.arrive(deployed)
    with pytest.raises(InvariantError, match="I5: 3 requests to model wait or run at 0 s, of 2"):
        world.run(1.0)


def test_a_bound_that_falls_lets_nothing_in_until_there_is_room() -> None:
    world, deployed = world_with({"replicas": 0, "max_queued_requests": 3})
    for _ in range(3):
        world.mesh.arrive(deployed)
    world.change(declared({"name": "model", "replicas": 0, "max_queued_requests": 2}))
    world.mesh.arrive(deployed)
    world.run(1.0)
    assert (deployed.queued, deployed.refused, deployed.ceiling) == (3, 1, 3)
    world.run(100.0)
    assert (deployed.left, deployed.ceiling) == (3, 2)


def test_a_refused_request_that_is_not_counted_is_found() -> None:
    world, deployed = world_with({"replicas": 0, "max_queued_requests": 1})
    for _ in range(2):
        world.mesh.arrive(deployed)
    check_mesh(world.mesh)
    deployed.refused = 0
    with pytest.raises(InvariantError, match="I5: 2 requests to model came, 1 were accepted and 0"):
        check_mesh(world.mesh)


def test_a_busy_replica_that_is_stopped_is_found() -> None:
    world, deployed = world_with({"replicas": 1})
    world.run(3.0)
    world.mesh.arrive(deployed)
    (replica,) = world.mesh.replicas.values()
    with pytest.raises(InvariantError, match="was stopped at 3 s while it worked on 1 requests"):
        world.mesh._stop(replica)


def test_a_node_that_is_released_with_a_replica_on_it_is_found() -> None:
    world, _ = world_with({"replicas": 1})
    world.run(3.0)
    with pytest.raises(InvariantError, match="I1: node n1 was released at 3 s with model-1 on it"):
        world.mesh.release_node("n1")


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
