"""How much of a GPU's memory is free: what is promised, what is in use, and by whom."""

import pytest

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Gpu, GpuProcess, Node, ReplicaStatus
from services.autoscaler.capacity import Capacity, Demand, Share
from services.autoscaler.plan import plan
from services.autoscaler.rollout import Spec
from services.autoscaler.roster import Assigned, Roster
from services.autoscaler.view import View, view_of

GIB = 1 << 30
STARTING, READY = ReplicaStatus.STATE_STARTING, ReplicaStatus.STATE_READY


def status(name: str, used: float, state: ReplicaStatus.State = READY) -> ReplicaStatus:
    return ReplicaStatus(
        replica_id=name,
        deployment=f"deployments/{name}",
        generation=1,
        gpu_uuids=["g"],
        gpus=0.2,
        state=state,
        gpu_memory_used_bytes=int(used * GIB),
    )


def view(used: float, *replicas: ReplicaStatus, **held: float) -> View:
    """A GPU of 24 GiB with so much in use, by processes of replicas and others as named."""
    processes = [
        GpuProcess(
            process_id=n + 1,
            memory_used_bytes=int(gib * GIB),
            replica_id="" if owner == "foreign" else owner,
        )
        for n, (owner, gib) in enumerate(held.items())
    ]
    gpu = Gpu(
        uuid="g",
        memory_total_bytes=24 * GIB,
        memory_used_bytes=int(used * GIB),
        processes=processes,
    )
    node = Node(name="nodes/a", gpus=[gpu], replicas=replicas, state=Node.STATE_ACTIVE)
    return view_of(Snapshot(nodes=[node]))


def free(seen: View, **declared: float) -> float:
    """GiB that a plan finds free beside replicas that are assigned and declare so much."""
    roster = Roster()
    roster.put(
        "a",
        [
            Assigned(name, name, 1, Share("a", ("g",), Demand(0.2, int(gib * GIB))))
            for name, gib in declared.items()
        ],
    )
    specs = {name: Spec(name, 1, Demand(0.2, int(gib * GIB))) for name, gib in declared.items()}
    made = plan(specs, dict.fromkeys(specs, 1), roster, seen, lambda name: f"{name}-new")
    assert not made.changes
    return made.capacity.loads["a"].gpu_free_bytes(0) / GIB


def test_what_a_replica_declares_is_reserved_though_it_uses_less() -> None:
    assert free(view(3, status("x", 3)), x=8) == 16


def test_a_replica_that_uses_more_than_it_declares_counts_with_what_it_uses() -> None:
    assert free(view(9, status("x", 9)), x=8) == 15


def test_what_one_uses_beyond_its_declaration_is_not_taken_from_what_another_left_over() -> None:
    # Their sum, 12 of 16 GiB declared, would hide that x uses 2 GiB too much.
    assert free(view(12, status("x", 10), status("y", 2)), x=8, y=8) == 24 - 10 - 8


def test_processes_of_nobody_count_beside_what_replicas_declare() -> None:
    assert free(view(7, status("x", 3), x=3, foreign=4), x=8) == 24 - 4 - 8


def test_what_a_starting_replica_has_not_allocated_yet_stays_reserved() -> None:
    # 5 GiB are in use: 3 of x and 2 of nobody. y will take 8 that are not in use yet.
    assert free(view(5, status("x", 3), status("y", 0, STARTING)), x=8, y=8) == 24 - 2 - 16
    assert free(view(10, status("x", 3), status("y", 5, STARTING)), x=8, y=8) == 24 - 2 - 16


def test_a_replica_that_is_assigned_and_not_reported_has_allocated_nothing() -> None:
    assert free(view(4), x=8) == 24 - 4 - 8


def test_where_nobody_says_whose_memory_it_is_replicas_are_taken_to_use_what_they_declare() -> None:
    assert free(view(6, status("x", 0)), x=8) == 24 - 8
    assert free(view(9, status("x", 0)), x=8) == 24 - 9


def test_a_replica_that_is_in_no_list_of_processes_uses_nothing() -> None:
    seen = view(8, status("x", 0), status("y", 2), foreign=6, y=2)
    assert free(seen, x=8, y=2) == 24 - 6 - 8 - 2


def test_an_agent_that_sees_no_process_of_any_replica_does_not_know_whose_memory_it_is() -> None:
    assert free(view(6, status("x", 0), foreign=6), x=8) == 24 - 8


def test_a_replica_that_leaves_holds_what_it_uses() -> None:
    assert free(view(6, status("x", 6))) == 24 - 6


def test_memory_that_is_released_is_all_that_was_held() -> None:
    seen = view(11, status("x", 9), x=9, foreign=2)
    share = Share("a", ("g",), Demand(0.2, 8 * GIB), (9 * GIB,))
    capacity = Capacity(seen.nodes, [share])
    assert capacity.loads["a"].gpu_free_bytes(0) == 13 * GIB
    capacity.release(share)
    assert capacity.loads["a"].gpu_free_bytes(0) == 22 * GIB


@pytest.mark.parametrize(
    ("listed", "expected"),
    [({}, (4 * GIB, 4 * GIB)), ({"g": 6, "h": 2}, (6 * GIB, 2 * GIB)), ({"g": 4}, (8 * GIB, 0))],
)
def test_memory_of_several_gpus_is_split_by_processes_or_else_evenly(
    listed: dict[str, int], expected: tuple[int, ...]
) -> None:
    gpus = [
        Gpu(
            uuid=uuid,
            processes=[
                GpuProcess(process_id=7, memory_used_bytes=listed[uuid] * GIB, replica_id="x")
            ]
            if uuid in listed
            else (),
        )
        for uuid in ("g", "h")
    ]
    both = status("x", 8)
    both.gpu_uuids.append("h")
    node = Node(name="nodes/a", gpus=gpus, replicas=[both], state=Node.STATE_ACTIVE)
    assert view_of(Snapshot(nodes=[node])).replicas["x"].used_bytes == expected
