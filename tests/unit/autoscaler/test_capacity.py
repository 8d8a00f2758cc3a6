"""What nodes have and what is held of it."""

import pytest

from services.autoscaler.capacity import Capacity, Demand, Gpu, Node, Share

GIB = 1 << 30
NODE = Node(
    "a",
    4,
    (Gpu("a-0", 16 * GIB), Gpu("a-1", 16 * GIB, 10 * GIB)),
    cpus=8,
    memory_bytes=32 * GIB,
    custom=(("license", 2.0),),
)


def test_what_is_taken_and_released_leaves_nothing_behind() -> None:
    capacity = Capacity([NODE])
    shares = [Share("a", ("a-0",), Demand(0.1, cpus=0.7, custom=(("license", 0.3),)))] * 3
    for share in shares:
        capacity.take(share)
    for share in shares:
        capacity.release(share)
    load = capacity.loads["a"]
    assert load.empty
    assert (load.fullness, load.most_used_ratio) == (0.0, 0.0)


def test_every_resource_is_counted() -> None:
    whole = Demand(2.0, 8 * GIB, cpus=3, memory_bytes=4 * GIB, custom=(("license", 1.0),))
    load = Capacity([NODE], [Share("a", ("a-0", "a-1"), whole), Share("a", (), Demand())]).loads[
        "a"
    ]
    assert load.gpus_used == [1.0, 1.0]
    assert load.gpu_bytes == [4 * GIB, 4 * GIB]
    assert load.slots_used == 1
    assert (load.cpus_used, load.memory_used_bytes) == (3, 4 * GIB)
    assert load.custom_used == {"license": 1.0}
    # Of its 4 slots and 2 GPUs three are held; of its GPUs all.
    assert load.fullness == pytest.approx(3 / 6)
    assert load.most_used_ratio == 1.0


def test_gpu_memory_counts_as_declared_or_as_measured_whichever_is_more() -> None:
    shares = [Share("a", (f"a-{i}",), Demand(0.5, 6 * GIB)) for i in range(2)]
    load = Capacity([NODE], shares).loads["a"]
    assert load.gpu_free_bytes(0) == 10 * GIB
    assert load.gpu_free_bytes(1) == 6 * GIB


def test_a_gpu_or_node_that_vanished_holds_nothing() -> None:
    gone = [Share("a", ("a-9",), Demand(1.0)), Share("b", (), Demand())]
    capacity = Capacity([NODE], gone)
    assert capacity.loads["a"].empty
    capacity.release(gone[1])
    assert capacity.fullness("b") == 0.0


def test_a_node_that_was_closed_before_keeps_its_reason() -> None:
    capacity = Capacity([Node("a", 1, closed="it is draining"), Node("b", 1)])
    for node in ("a", "b"):
        capacity.close(node, "it is being emptied")
    assert [load.closed for load in capacity.loads.values()] == [
        "it is draining",
        "it is being emptied",
    ]
    capacity.reopen("b")
    assert capacity.loads["b"].closed == ""
