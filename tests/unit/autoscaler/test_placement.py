"""Where replicas go, and why they do not go elsewhere."""

from services.autoscaler import placement
from services.autoscaler.capacity import Capacity, Demand, Gpu, Node, Share, is_accelerator
from services.autoscaler.placement import Place, Refusal, Strategy, never_fits, summarise

CPU = Demand()
GIB = 1 << 30


def place(demand: Demand, nodes: list[Node], shares: list[Share]) -> Place | tuple[Refusal, ...]:
    return placement.place(demand, Capacity(nodes, shares))


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


def test_an_accelerator_type_is_a_word_of_the_product_name_whatever_the_case() -> None:
    assert is_accelerator("l4", "NVIDIA L4")
    assert not is_accelerator("L4", "NVIDIA L40S")
    assert is_accelerator("A100", "NVIDIA A100-SXM4-80GB")
    assert is_accelerator("RTX 4090", "NVIDIA GeForce RTX 4090")


def test_an_accelerator_type_chooses_among_the_gpus_of_a_node() -> None:
    mixed = Node("a", 0, (Gpu("a-0", 0, 0, "NVIDIA T4"), Gpu("a-1", 0, 0, "NVIDIA L4")))
    assert place(Demand(1, accelerator_type="L4"), [mixed], []) == Place("a", ("a-1",))
    assert place(Demand(1, accelerator_type="H100"), [mixed], []) == (
        Refusal("a", "it has no H100"),
    )
    assert place(Demand(2, accelerator_type="L4"), [mixed], []) == (
        Refusal("a", "1 of its 1 GPUs are free, 2 are needed"),
    )


def test_declared_cpus_and_memory_must_fit_beside_what_is_declared() -> None:
    node = Node("a", 9, cpus=4, memory_bytes=8 * GIB)
    held = [Share("a", (), Demand(cpus=3, memory_bytes=6 * GIB))]
    assert place(Demand(cpus=1, memory_bytes=2 * GIB), [node], held) == Place("a")
    assert place(Demand(cpus=1.5), [node], held) == (
        Refusal("a", "1 of its 4 CPUs are free, 1.5 are needed"),
    )
    assert place(Demand(memory_bytes=3 * GIB), [node], held) == (
        Refusal("a", "2.0 GiB of its memory are free, 3.0 GiB are needed"),
    )


def test_a_node_that_does_not_say_what_it_has_takes_nobody_who_declares_it() -> None:
    assert place(CPU, [Node("a", 1)], []) == Place("a")
    assert place(Demand(cpus=1), [Node("a", 1)], []) == (
        Refusal("a", "it does not say how many CPUs it has"),
    )
    assert place(Demand(memory_bytes=1), [Node("a", 1)], []) == (
        Refusal("a", "it does not say how much memory it has"),
    )


def test_custom_resources_are_counted() -> None:
    node = Node("a", 9, custom=(("license", 2.0),))
    one = Demand(custom=(("license", 1.0),))
    assert place(one, [node], [Share("a", (), one)]) == Place("a")
    assert place(one, [node], [Share("a", (), one)] * 2) == (
        Refusal("a", "0 of its 2 license are free, 1 are needed"),
    )
    assert place(one, [Node("b", 9)], []) == (Refusal("b", "it has no license"),)


def test_spread_goes_where_the_fewest_of_the_deployment_are_and_then_to_the_emptiest() -> None:
    capacity = Capacity([Node("a", 4), Node("b", 4), Node("c", 4)], [*cpu("a", 2), *cpu("b", 1)])
    spread = Strategy.SPREAD
    assert placement.place(CPU, capacity, spread, {}) == Place("c")
    assert placement.place(CPU, capacity, spread, {"c": 1}) == Place("b")
    assert placement.place(CPU, capacity, spread, {"a": 2, "b": 2, "c": 1}) == Place("c")


def test_a_placement_sees_what_was_taken_and_released_since_the_last() -> None:
    capacity = Capacity([gpu_node("a", 1), gpu_node("b", 1)])
    share = Share("a", ("a-0",), Demand(0.75))
    half = Demand(0.5)
    assert placement.place(half, capacity) == Place("a", ("a-0",))
    capacity.take(share)
    assert placement.place(half, capacity) == Place("b", ("b-0",))
    capacity.close("b", "it is being emptied")
    assert placement.place(half, capacity) == (
        Refusal("a", "no GPU has 0.5 of itself free"),
        Refusal("b", "it is being emptied"),
    )
    capacity.release(share)
    assert placement.place(half, capacity) == Place("a", ("a-0",))


def test_refusals_of_many_nodes_are_counted_by_reason() -> None:
    refusals = {f"n{i}": "no GPU has 0.5 of itself free" for i in range(1000)}
    assert summarise(refusals) == "1,000 nodes: no GPU has 0.5 of itself free"
    refusals["n7"] = "it is draining"
    assert summarise(refusals) == "999 nodes: no GPU has 0.5 of itself free; 1 node: it is draining"
    many = {f"n{i}": f"reason {i}" for i in range(10)}
    assert summarise(many).endswith("; 6 nodes for other reasons")


def test_what_can_never_fit_is_told_apart_from_what_has_no_room_now() -> None:
    full = Node("a", 1, (Gpu("a-0", 16 * GIB, 16 * GIB, "NVIDIA L4"),), "it is draining", 4.0)
    small = Node("b", 0, custom=(("license", 1.0),))
    for demand in (CPU, Demand(0.5), Demand(1, 8 * GIB, "l4"), Demand(cpus=4)):
        assert never_fits(demand, [full, small]) == ""
    for demand, why in [
        (Demand(8), "it needs 8 GPUs, the largest node has 1"),
        (Demand(1, accelerator_type="H100"), "it needs 1 H100 GPU, no node has one"),
        (Demand(1, 80 * GIB), "it needs 80.0 GiB on a GPU, the largest has 16.0 GiB"),
        (Demand(cpus=8), "it needs 8 CPUs, the largest node has 4"),
        (Demand(memory_bytes=GIB), "it needs 1.0 GiB of memory, no node says how much it has"),
        (Demand(custom=(("license", 2.0),)), "it needs 2 license, the largest node has 1"),
        (
            Demand(0.5, custom=(("license", 1.0),)),
            "no node that is known has all that it needs at once",
        ),
    ]:
        assert never_fits(demand, [full, small]) == why
    assert never_fits(Demand(8), []) == ""


DATA = Demand(volumes=(("data", False),))
READS = Demand(volumes=(("data", True), ("weights", True)))


def test_a_replica_goes_only_to_nodes_that_offer_all_of_its_volumes() -> None:
    nodes = [
        Node("a", 4),
        Node("b", 4, volumes=(("data", False),)),
        Node("c", 4, volumes=(("data", True), ("weights", True))),
    ]
    assert place(READS, nodes, []) == Place("c")
    assert place(READS, nodes[:2], []) == (
        Refusal("a", "it does not offer the volume data"),
        Refusal("b", "it does not offer the volume weights"),
    )


def test_a_replica_that_writes_goes_where_the_volume_may_be_written() -> None:
    nodes = [Node("a", 4, volumes=(("data", True),)), Node("b", 4, volumes=(("data", False),))]
    assert place(DATA, nodes, cpu("a", 2)) == Place("b")
    assert place(DATA, nodes, cpu("b", 4)) == (
        Refusal("a", "it offers the volume data for reading only"),
        Refusal("b", "all 4 slots are taken"),
    )


def test_a_volume_that_no_node_offers_is_never_there() -> None:
    nodes = [Node("a", 4), Node("b", 4, volumes=(("data", True),))]
    assert never_fits(DATA, nodes) == "it needs the volume data, which no node offers for writing"
    assert never_fits(DATA, nodes[:1]) == "it needs the volume data, which no node offers at all"
    assert never_fits(Demand(volumes=(("data", True),)), nodes) == ""


def mig_node() -> Node:
    slices = tuple(
        Gpu(f"MIG-{i}", 5 * GIB, product_name="NVIDIA A100-SXM4-40GB MIG 1g.5gb", is_mig=True)
        for i in range(3)
    )
    return Node("m", 0, (*slices, Gpu("GPU-1", 40 * GIB, product_name="NVIDIA A100-SXM4-40GB")))


def test_a_mig_instance_is_a_gpu_for_one_replica_or_fractions() -> None:
    kind = "1g.5gb"
    assert place(Demand(1.0, 4 * GIB, kind), [mig_node()], []) == Place("m", ("MIG-0",))
    held = [Share("m", ("MIG-0",), Demand(0.5))]
    assert place(Demand(0.5, accelerator_type=kind), [mig_node()], held) == Place("m", ("MIG-0",))
    assert place(Demand(1.0, 6 * GIB), [mig_node()], []) == Place("m", ("GPU-1",))


def test_a_replica_of_several_gpus_gets_no_mig_instance() -> None:
    assert place(Demand(2.0), [mig_node()], []) == (
        Refusal(
            "m", "3 of its 4 GPUs are MIG instances, and the 2 of a replica must be whole ones"
        ),
    )
    assert never_fits(Demand(2.0), [mig_node()]) == "it needs 2 GPUs, the largest node has 1"
    beside = Node("m", 0, (*mig_node().gpus, Gpu("GPU-2", 40 * GIB)))
    assert place(Demand(2.0), [beside], []) == Place("m", ("GPU-1", "GPU-2"))


def test_a_cordoned_gpu_is_named_with_its_reason() -> None:
    gpus = (Gpu("g-0", fault="Xid 79"), Gpu("g-1"))
    shares = [Share("a", ("g-1",), Demand(0.75))]
    assert place(Demand(0.2), [Node("a", 0, gpus)], shares) == Place("a", ("g-1",))
    assert place(Demand(1.0), [Node("a", 0, gpus)], shares) == (
        Refusal("a", "0 of its 2 GPUs are free, 1 are needed; GPU g-0 is cordoned: Xid 79"),
    )
    three = tuple(Gpu(f"g-{i}", fault=f"Xid {i}") for i in range(3))
    assert place(Demand(0.5), [Node("a", 0, three)], []) == (
        Refusal("a", "GPU g-0 is cordoned: Xid 0; GPU g-1 is cordoned: Xid 1; 1 more are cordoned"),
    )
