"""Where replicas go, and why they do not go elsewhere."""

from services.autoscaler.placement import Demand, Gpu, Node, Place, Refusal, Share, place

CPU = Demand()
GIB = 1 << 30


def gpu_node(name: str, count: int, closed: str = "", memory_bytes: int = 16 * GIB) -> Node:
    gpus = tuple(Gpu(f"{name}-{i}", memory_bytes) for i in range(count))
    return Node(name, slots=4, gpus=gpus, closed=closed)


def cpu(node: str, count: int) -> list[Share]:
    return [Share(node, (), CPU)] * count


def test_a_cpu_replica_goes_to_the_fullest_node_with_a_free_slot() -> None:
    nodes = [Node("a", 4), Node("b", 4), Node("c", 2)]
    assert place(CPU, nodes, [*cpu("b", 2), *cpu("c", 2)]) == Place("b")


def test_nodes_alike_are_taken_by_name() -> None:
    assert place(CPU, [Node("b", 4), Node("a", 4)], []) == Place("a")


def test_a_closed_node_is_no_candidate() -> None:
    nodes = [Node("a", 4, closed="it is draining"), Node("b", 1)]
    assert place(CPU, nodes, []) == Place("b")
    assert place(CPU, nodes, cpu("b", 1)) == (
        Refusal("a", "it is draining"),
        Refusal("b", "all 1 slots are taken"),
    )


def test_a_fraction_goes_to_the_fullest_gpu_that_fits() -> None:
    shares = [
        Share("a", ("a-0",), Demand(0.25)),
        Share("b", ("b-1",), Demand(0.5)),
        Share("b", ("b-0",), Demand(0.75)),
    ]
    nodes = [gpu_node("a", 2), gpu_node("b", 2)]
    assert place(Demand(0.5), nodes, shares) == Place("b", ("b-1",))


def test_a_fraction_never_straddles_two_gpus() -> None:
    shares = [Share("a", (f"a-{i}",), Demand(0.6)) for i in range(2)]
    assert place(Demand(0.5), [gpu_node("a", 2)], shares) == (
        Refusal("a", "no GPU has 0.5 of itself free"),
    )


def test_ten_tenths_fill_a_gpu_exactly() -> None:
    shares = [Share("a", ("a-0",), Demand(0.1))] * 9
    assert place(Demand(0.1), [gpu_node("a", 1)], shares) == Place("a", ("a-0",))
    assert isinstance(place(Demand(0.1), [gpu_node("a", 1)], [*shares, shares[0]]), tuple)


def test_whole_gpus_are_not_shared_and_stand_on_one_node() -> None:
    nodes = [gpu_node("a", 2), gpu_node("b", 2)]
    shares = [Share("a", ("a-0",), Demand(0.1))]
    assert place(Demand(2), nodes, shares) == Place("b", ("b-0", "b-1"))
    assert place(Demand(3), nodes, []) == (
        Refusal("a", "2 of its 2 GPUs are free, 3 are needed"),
        Refusal("b", "2 of its 2 GPUs are free, 3 are needed"),
    )


def test_declared_memory_must_fit_beside_what_is_declared() -> None:
    shares = [Share("a", ("a-0",), Demand(0.25, 10 * GIB))]
    assert place(Demand(0.25, 6 * GIB), [gpu_node("a", 1)], shares) == Place("a", ("a-0",))
    assert place(Demand(0.25, 7 * GIB), [gpu_node("a", 1)], shares) == (
        Refusal("a", "its GPUs have at most 6.0 GiB of memory free, 7.0 GiB are needed"),
    )


def test_measured_memory_counts_when_it_is_more_than_declared() -> None:
    node = Node("a", 0, (Gpu("a-0", 16 * GIB, memory_used_bytes=12 * GIB),))
    assert isinstance(place(Demand(0.5, 8 * GIB), [node], []), tuple)


def test_nodes_without_what_is_needed_say_so() -> None:
    assert place(Demand(1), [Node("a", 4)], []) == (Refusal("a", "it has no GPU"),)
    assert place(CPU, [Node("a", 0)], []) == (Refusal("a", "it has no CPU slots"),)
    assert place(CPU, [], []) == ()
