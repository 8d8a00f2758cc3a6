"""What is seen of the mesh in a snapshot."""

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Gpu, Node, ReplicaStatus
from services.autoscaler import capacity
from services.autoscaler.view import Attendance, Presence, ReplicaView, State, view_of


def snapshot() -> Snapshot:
    ready = ReplicaStatus(
        replica_id="add-1",
        deployment="deployments/add",
        generation=3,
        gpu_uuids=["a-0"],
        gpus=0.5,
        state=ReplicaStatus.STATE_READY,
        ongoing_count=2,
        start_count=1,
        message="serving",
    )
    ready.startup_time.FromMilliseconds(2500)
    draining = ReplicaStatus(
        replica_id="add-2", deployment="deployments/add", state=ReplicaStatus.STATE_DRAINING
    )
    there = Node(
        name="nodes/a",
        slot_count=4,
        gpus=[Gpu(uuid="a-0", product_name="NVIDIA L4", memory_total_bytes=9, memory_used_bytes=4)],
        replicas=[ready, draining],
        state=Node.STATE_ACTIVE,
        applied_revision=7,
        cpus=8,
        memory_bytes=64,
        custom={"tpu": 2, "license": 1},
        volumes=["weights", "data"],
        read_only_volumes=["weights"],
    )
    away = Node(
        name="nodes/b",
        replicas=[ReplicaStatus(replica_id="add-3", state=ReplicaStatus.STATE_READY)],
        state=Node.STATE_OFFLINE,
    )
    leaving = Node(name="nodes/c", slot_count=1, state=Node.STATE_DRAINING)
    made = Snapshot(nodes=[there, away, leaving])
    made.sample_time.FromSeconds(100)
    for node, last_s in zip(made.nodes, (99, 60, 100), strict=True):
        node.last_report_time.FromSeconds(last_s)
    return made


def test_a_replica_is_seen_as_its_agent_reports_it() -> None:
    assert view_of(snapshot()).replicas["add-1"] == ReplicaView(
        node="a",
        deployment="add",
        generation=3,
        state=State.READY,
        ongoing_count=2,
        start_count=1,
        startup_s=2.5,
        gpu_uuids=("a-0",),
        gpus=0.5,
        message="serving",
    )


def test_the_start_up_time_of_a_replica_that_was_never_ready_is_not_known() -> None:
    view = view_of(snapshot())
    assert view.replicas["add-2"].startup_s is None
    assert view.draining_counts == {"add": 1}


def test_replicas_of_a_node_that_does_not_report_are_not_seen() -> None:
    assert sorted(view_of(snapshot()).replicas) == ["add-1", "add-2"]


def test_nodes_are_seen_with_what_they_have_and_why_they_take_nothing() -> None:
    view = view_of(snapshot())
    assert view.nodes[0] == capacity.Node(
        "a",
        4,
        (capacity.Gpu("a-0", 9, 4, "NVIDIA L4"),),
        "",
        8.0,
        64,
        (("license", 1.0), ("tpu", 2.0)),
        (("data", False), ("weights", True)),
    )
    assert [node.closed for node in view.nodes] == ["", "it does not report", "it is draining"]
    assert view.attendance == {
        "a": Attendance(Presence.ACTIVE, 1.0, 7),
        "b": Attendance(Presence.OFFLINE, 40.0, 0),
        "c": Attendance(Presence.DRAINING, 0.0, 0),
    }
