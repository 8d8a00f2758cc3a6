"""What happens to GPUs that are faulty, lost, or reported by two nodes."""

from dataclasses import replace

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Gpu as GpuMessage
from forebay.v1.node_pb2 import Node as NodeMessage
from services.autoscaler.capacity import Demand, Gpu, Node
from services.autoscaler.plan import Plan
from services.autoscaler.rollout import Replica
from services.autoscaler.view import State, view_of
from tests.support.small_mesh import SmallMesh

XID = "Xid 79: the GPU has fallen off the bus"
WHOLE = Demand(1.0)
HALF = Demand(0.5)


def node(name: str, gpus: int = 2, slots: int = 4) -> Node:
    return Node(name, slots, tuple(Gpu(f"{name}-{i}", 1 << 34) for i in range(gpus)))


def fail(mesh: SmallMesh, uuid: str, fault: str = XID) -> None:
    mesh.nodes = [
        replace(n, gpus=tuple(replace(g, fault=fault) if g.uuid == uuid else g for g in n.gpus))
        for n in mesh.nodes
    ]


def settled(mesh: SmallMesh) -> SmallMesh:
    mesh.apply(mesh.plan())
    mesh.all_ready()
    assert not mesh.plan().changes
    return mesh


def places(replicas: tuple[Replica, ...]) -> list[tuple[str, ...]]:
    return [replica.share.gpu_uuids for replica in replicas]


def removed(made: Plan, name: str) -> list[tuple[str, str]]:
    return [(r.replica_id, why) for r, why in made.steps[name].remove]


def test_replicas_of_a_faulty_gpu_are_replaced_in_one_step_and_the_others_stay() -> None:
    mesh = SmallMesh([node("a"), node("b")])
    mesh.declare("add", 2, WHOLE)
    settled(mesh)
    fail(mesh, "a-1")
    made = mesh.plan()
    assert removed(made, "add") == [("add-2", f"GPU a-1 of node a is cordoned: {XID}")]
    assert places(made.steps["add"].keep) == [("a-0",)]
    assert places(made.steps["add"].create) == [("b-0",)]
    assert made.steps["add"].unplaced == 0


def test_the_successor_is_written_before_what_it_replaces_goes() -> None:
    mesh = SmallMesh([node("a", 1), node("b", 1)])
    mesh.declare("add", 1, WHOLE)
    settled(mesh)
    fail(mesh, "a-0")
    assert list(mesh.plan().changes) == ["b", "a"]


def test_it_does_not_wait_for_a_rollout() -> None:
    mesh = SmallMesh([node("a", 3), node("b", 1)])
    mesh.declare("add", 3, WHOLE)
    settled(mesh)
    mesh.declare("add", 3, WHOLE, generation=2)
    mesh.apply(mesh.plan())
    fail(mesh, "a-0")
    made = mesh.plan()
    assert [replica_id for replica_id, _ in removed(made, "add")] == ["add-1"]


def test_without_room_elsewhere_it_goes_and_the_status_names_the_gpu() -> None:
    mesh = SmallMesh([node("a", 1)])
    mesh.declare("add", 1, HALF)
    settled(mesh)
    fail(mesh, "a-0")
    made = mesh.plan()
    step = made.steps["add"]
    assert (step.keep, step.create, step.unplaced, step.short) == ((), (), 1, 1)
    assert step.why == f"a: GPU a-0 is cordoned: {XID}"
    assert step.never == ""


def test_a_gpu_that_works_again_is_used_again() -> None:
    mesh = SmallMesh([node("a", 1)])
    mesh.declare("add", 1, WHOLE)
    settled(mesh)
    fail(mesh, "a-0")
    mesh.apply(mesh.plan())
    assert not mesh.roster.by_id
    fail(mesh, "a-0", "")
    assert places(mesh.plan().steps["add"].create) == [("a-0",)]


def test_a_replica_of_several_gpus_leaves_them_all() -> None:
    mesh = SmallMesh([node("a"), node("b")])
    mesh.declare("add", 1, Demand(2.0))
    settled(mesh)
    fail(mesh, "a-1")
    assert places(mesh.plan().steps["add"].create) == [("b-0", "b-1")]


def test_what_still_drains_on_a_cordoned_gpu_is_told_and_holds_no_machine_back() -> None:
    mesh = SmallMesh([node("a", 1)])
    mesh.slow_to_stop = True
    mesh.declare("add", 1, WHOLE)
    settled(mesh)
    fail(mesh, "a-0")
    mesh.apply(mesh.plan())
    made = mesh.plan()
    assert made.stranded == {"add": [("add-1", f"GPU a-0 of node a is cordoned: {XID}")]}
    assert made.steps["add"].short == 1


def test_a_replica_that_failed_on_a_gpu_that_is_not_there_moves() -> None:
    mesh = SmallMesh([node("a", 1), node("b", 1)])
    mesh.declare("add", 1, WHOLE)
    settled(mesh)
    mesh.nodes = [node("a", 0), node("b", 1)]
    # As long as it may serve, an inventory that is not complete yet moves nothing.
    assert not mesh.plan().changes
    mesh.states["add-1"] = State.FAILED
    made = mesh.plan()
    assert removed(made, "add") == [("add-1", "node a has no GPU a-0 any more")]
    assert places(made.steps["add"].create) == [("b-0",)]


def two_agents() -> SmallMesh:
    mesh = SmallMesh([node("a"), replace(node("a"), name="b")])
    mesh.declare("add", 3, WHOLE)
    return mesh


def test_a_gpu_that_two_nodes_report_is_used_through_the_first_by_name() -> None:
    mesh = two_agents()
    made = mesh.plan()
    assert {r.node for r in made.steps["add"].create} == {"a"}
    assert made.steps["add"].unplaced == 1
    said = "is cordoned: nodes a and b report the same GPU, it is used through a"
    assert f"b: GPU a-0 {said}; GPU a-1 {said}" in made.steps["add"].why


def test_it_is_used_through_the_node_that_holds_replicas_on_it() -> None:
    mesh = two_agents()
    mesh.declare("add", 1, WHOLE)
    mesh.assign("add", "b", ("a-1",))
    mesh.declare("add", 3, WHOLE)
    made = mesh.plan()
    assert not made.steps["add"].remove
    created = made.steps["add"].create
    assert [(r.node, r.share.gpu_uuids) for r in created] == [("a", ("a-0",))]


def test_of_two_owners_of_one_gpu_the_second_one_goes() -> None:
    mesh = two_agents()
    mesh.declare("add", 2, WHOLE)
    for name in ("a", "b"):
        mesh.assign("add", name, ("a-0",))
    made = mesh.plan()
    assert [replica_id for replica_id, _ in removed(made, "add")] == ["add-b"]


def test_a_node_that_does_not_report_and_holds_nothing_keeps_no_gpu() -> None:
    mesh = two_agents()
    mesh.nodes[0] = replace(mesh.nodes[0], closed="it does not report")
    assert {r.node for r in mesh.plan().steps["add"].create} == {"b"}


def seen(**fields: object) -> Node:
    gpu = GpuMessage(uuid="g", memory_total_bytes=9, memory_used_bytes=4, **fields)
    message = NodeMessage(name="nodes/a", gpus=[gpu], state=NodeMessage.STATE_ACTIVE)
    (made,) = view_of(Snapshot(nodes=[message])).nodes
    return made


def test_health_is_seen_with_its_reason() -> None:
    faulty, lost = GpuMessage.HEALTH_FAULTY, GpuMessage.HEALTH_LOST
    assert seen(health=faulty, health_message="Xid 79").gpus[0].fault == "Xid 79"
    assert seen(health=faulty).gpus[0].fault == "its node calls it faulty"
    assert seen(health=lost).gpus[0].fault == "it was there and is not found any more"
    for health in (GpuMessage.HEALTH_OK, GpuMessage.HEALTH_UNSPECIFIED, 9):
        assert seen(health=health, health_message="warm").gpus[0].fault == ""
    assert len(seen(health=faulty, health_message="x\n" * 9999).gpus[0].fault) == 300


def test_memory_of_a_simulated_gpu_says_nothing() -> None:
    assert seen(simulated=True).gpus[0].memory_used_bytes == 0
    assert seen().gpus[0].memory_used_bytes == 4


def test_a_node_that_cannot_start_replicas_takes_none_and_keeps_those_it_has() -> None:
    message = NodeMessage(
        name="nodes/a", state=NodeMessage.STATE_ACTIVE, runtime_message="the launcher is away"
    )
    (closed,) = view_of(Snapshot(nodes=[message])).nodes
    assert closed.closed == "it cannot start replicas now: the launcher is away"
    mesh = SmallMesh([node("a")])
    mesh.declare("add", 1, WHOLE)
    settled(mesh)
    mesh.nodes = [replace(node("a"), closed=closed.closed)]
    assert not mesh.plan().changes
    mesh.declare("add", 2, WHOLE)
    made = mesh.plan()
    assert (made.steps["add"].remove, made.steps["add"].unplaced) == ((), 1)
    assert made.steps["add"].why == f"a: {closed.closed}"
