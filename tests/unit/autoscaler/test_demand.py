"""What machines are missing and which could go."""

from dataclasses import replace

from services.autoscaler.capacity import Demand, Node
from services.autoscaler.demand import IdleNodes, node_demand
from tests.support.small_mesh import SmallMesh


def releasable(mesh: SmallMesh, idle: IdleNodes, now_s: float) -> list[str]:
    made = mesh.plan()
    found = idle.releasable(now_s, made, mesh.roster, mesh.view())
    mesh.apply(made)
    return found


def test_replicas_without_a_place_are_grouped_by_what_they_need() -> None:
    mesh = SmallMesh([Node("a", 1)])
    mesh.declare("cpu", 3, Demand())
    mesh.declare("one", 2, Demand(1, 8 << 30, "L4", custom=(("license", 1.0),)))
    mesh.declare("two", 1, Demand(1, 8 << 30, "L4", custom=(("license", 1.0),)))
    made = node_demand(mesh.specs, mesh.plan().steps, ["b"], 1000.5)
    assert made.sample_time.ToMilliseconds() == 1_000_500
    assert list(made.releasable_nodes) == ["nodes/b"]
    cpu, gpu = made.unplaced
    assert (cpu.replica_count, list(cpu.deployments)) == (2, ["deployments/cpu"])
    assert (gpu.replica_count, list(gpu.deployments)) == (3, ["deployments/one", "deployments/two"])
    assert (gpu.resources.gpus, gpu.resources.accelerator_type) == (1, "L4")
    assert gpu.resources.custom["license"] == 1


def test_volumes_make_no_other_shape_as_whoever_adds_machines_knows_none() -> None:
    mesh = SmallMesh([])
    mesh.declare("a", 1, Demand(cpus=1, volumes=(("data", False),)))
    mesh.declare("b", 1, Demand(cpus=1))
    (shape,) = node_demand(mesh.specs, mesh.plan().steps, [], 0.0).unplaced
    assert shape.replica_count == 2


def test_at_most_twenty_deployments_are_named_for_a_shape() -> None:
    mesh = SmallMesh([])
    for i in range(30):
        mesh.declare(f"d{i:02}", 1, Demand())
    (shape,) = node_demand(mesh.specs, mesh.plan().steps, [], 0.0).unplaced
    assert (shape.replica_count, len(shape.deployments)) == (30, 20)


def test_what_only_waits_for_another_look_asks_for_no_machine() -> None:
    mesh = SmallMesh([Node("a", 4)])
    mesh.declare("add", 4, Demand())
    made = mesh.plan(max_placements=1)
    assert made.steps["add"].deferred == 3
    assert not node_demand(mesh.specs, made.steps, [], 0.0).unplaced


def test_a_node_may_go_once_it_has_been_idle_for_the_delay() -> None:
    mesh = SmallMesh([Node("a", 4), Node("b", 4)])
    mesh.declare("add", 1, Demand())
    idle = IdleNodes(delay_s=300.0, keep_nodes=0)
    assert releasable(mesh, idle, 0.0) == []
    assert releasable(mesh, idle, 299.0) == []
    assert releasable(mesh, idle, 300.0) == ["b"]
    mesh.targets["add"] = 5
    assert releasable(mesh, idle, 301.0) == []
    mesh.targets["add"] = 4
    mesh.all_ready()
    assert releasable(mesh, idle, 302.0) == []
    # Idle from when what was taken is gone.
    assert releasable(mesh, idle, 303.0) == []
    assert releasable(mesh, idle, 602.0) == []
    assert releasable(mesh, idle, 603.0) == ["b"]


def test_a_node_on_which_something_still_drains_is_not_idle() -> None:
    mesh = SmallMesh([Node("a", 4)])
    mesh.slow_to_stop = True
    mesh.declare("add", 1, Demand())
    mesh.apply(mesh.plan())
    mesh.targets["add"] = 0
    idle = IdleNodes(delay_s=0.0, keep_nodes=0)
    assert releasable(mesh, idle, 0.0) == []
    assert releasable(mesh, idle, 1.0) == []
    mesh.stop_all()
    assert releasable(mesh, idle, 2.0) == ["a"]


def test_a_node_that_missed_a_report_is_as_idle_as_it_was_and_may_go_once_it_is_back() -> None:
    there = Node("a", 1)
    mesh = SmallMesh([there])
    idle = IdleNodes(delay_s=10.0, keep_nodes=0)
    assert releasable(mesh, idle, 0.0) == []
    mesh.nodes = [replace(there, closed="it does not report")]
    assert releasable(mesh, idle, 10.0) == []
    mesh.nodes = [there]
    assert releasable(mesh, idle, 11.0) == ["a"]


def test_so_many_nodes_are_kept_and_those_idle_the_longest_go() -> None:
    mesh = SmallMesh([Node("a", 1), Node("b", 1), Node("c", 1)])
    mesh.declare("add", 1, Demand())
    idle = IdleNodes(delay_s=10.0, keep_nodes=2)
    releasable(mesh, idle, 0.0)
    mesh.targets["add"] = 0
    assert releasable(mesh, idle, 20.0) == ["b"]
    assert releasable(mesh, idle, 40.0) == ["b"]
    assert IdleNodes(0.0, 3).releasable(0.0, mesh.plan(), mesh.roster, mesh.view()) == []
