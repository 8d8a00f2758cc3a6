"""What is lost comes back in time, and a run in which it does not is found."""

import pytest

from services.autoscaler.capacity import Demand, Gpu, Node, Share
from services.autoscaler.roster import Assigned
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.ownership import InvariantError
from services.autoscaler.simulation.recovery import amiss
from services.autoscaler.simulation.service_times import ServiceTimes
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.store import Store
from services.autoscaler.simulation.world import World
from tests.simulation.scenario import declared


def world_with(replicas: int, nodes: int = 2) -> tuple[World, Deployed]:
    world = World()
    for i in range(1, nodes + 1):
        world.mesh.add_node(Node(f"n{i}", 4, (Gpu(f"g{i}"),)))
    values = {"name": "model", "replicas": replicas, "resources": {"gpus": 1}}
    deployed = Deployed(declared(values), ServiceTimes(5.0).draws(()), StartupModel(1.0))
    world.lead()
    world.declare(deployed)
    world.run(3.0)
    return world, deployed


def taken(world: World) -> str:
    """The node of the first replica."""
    return next(iter(world.mesh.replicas.values())).node


def test_a_lost_node_whose_replicas_move_has_healed() -> None:
    world, _ = world_with(1)
    node = taken(world)
    world.mesh.lose_node(node, dies=True)
    world.run(100.0)
    assert taken(world) != node or len(world.mesh.replicas) == 2
    assert amiss(world.mesh, world._store) == ""


def test_a_lost_node_without_room_elsewhere_is_no_fault() -> None:
    world, _ = world_with(2)
    world.mesh.lose_node("n1", dies=True)
    world.run(100.0)


def test_replicas_that_stay_on_a_lost_node_are_found() -> None:
    world, _ = world_with(1)
    # An autoscaler that sees nothing, though metrics is there.
    world.autoscalers[0].metrics_away = True
    node = taken(world)
    world.mesh.lose_node(node, dies=True)
    world.run(42.0)
    with pytest.raises(InvariantError, match=f"I8: 30 s after the loss of node {node}.*gone"):
        world.run(100.0)


def test_a_failed_gpu_whose_replica_moves_has_healed() -> None:
    world, _ = world_with(1)
    node = taken(world)
    world.fail_gpu(node, 0, "Xid 79")
    world.run(100.0)
    assert taken(world) != node
    assert amiss(world.mesh, world._store) == ""


def test_replicas_that_stay_on_a_failed_gpu_are_found() -> None:
    world, _ = world_with(1)
    world.autoscalers[0].metrics_away = True
    node = taken(world)
    world.fail_gpu(node, 0, "Xid 79")
    said = (
        f"I8: 30 s after Xid 79 of GPU 0 of node {node}.* on a GPU of node {node} that has failed"
    )
    with pytest.raises(InvariantError, match=said):
        world.run(100.0)


def test_an_absence_of_metrics_does_not_count_until_it_is_over() -> None:
    world, _ = world_with(1)
    world.mesh.lose_node(taken(world), dies=True)
    world.see_nothing(True)
    world.run(300.0)
    world.see_nothing(False)
    world.run(400.0)
    assert amiss(world.mesh, world._store) == ""


def test_an_autoscaler_that_nobody_replaces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = world_with(1)
    monkeypatch.setattr(World, "_take_over", lambda _: None)
    world.fail_over()
    with pytest.raises(InvariantError, match=r"I8: 30 s after the death .* at 33 s: nobody leads"):
        world.run(100.0)


def test_a_replica_that_a_restart_leaves_unreplaced_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, _ = world_with(1)
    world.restart()
    world._store.targets["model"] = 2
    monkeypatch.setattr(world.autoscalers[0], "_place", lambda *_, **__: None)
    with pytest.raises(InvariantError, match=r"I8: .*model has 1 of 2 replicas, and there is room"):
        world.run(100.0)


def test_what_runs_and_is_not_assigned_is_amiss() -> None:
    world, _ = world_with(1)
    node, store = taken(world), world._store
    assert amiss(world.mesh, store) == ""
    store.roster.put(node, ())
    assert "assigned are []" in amiss(world.mesh, store)


def test_more_replicas_than_the_target_are_amiss_unless_they_start() -> None:
    world, _ = world_with(2)
    world._store.targets["model"] = 1
    assert amiss(world.mesh, world._store) == "model has 2 of 1 replicas"
    world.mesh.crash(next(iter(world.mesh.replicas.values())))
    assert amiss(world.mesh, world._store) == ""


def test_what_is_assigned_to_a_node_that_is_not_known_is_amiss() -> None:
    world, _ = world_with(0)
    store = Store()
    share = Share("n9", ("g",), Demand(1.0))
    store.put("n9", [Assigned("model-1", "model", 1, share)], 0, store.epoch)
    assert amiss(world.mesh, store) == "model-1 on node n9, which is gone"
