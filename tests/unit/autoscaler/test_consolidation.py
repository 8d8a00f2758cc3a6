"""Which node is emptied, when that is called off, and that it ends."""

from services.autoscaler.capacity import Demand, Gpu, Node
from services.autoscaler.consolidation import Consolidation
from services.autoscaler.placement import Strategy
from services.autoscaler.view import State
from tests.support.small_mesh import SmallMesh

DELAY_S = 60.0


def mesh(*counts: int, slots: int = 4, strategy: Strategy = Strategy.COMPACT) -> SmallMesh:
    """Nodes a, b, … with so many replicas each of deployments of one replica."""
    made = SmallMesh([Node(chr(ord("a") + i), slots) for i in range(len(counts))])
    for node, count in zip("abcdef", counts, strict=False):
        for i in range(count):
            made.declare(f"{node}{i}", 1, Demand(), strategy)
            made.assign(f"{node}{i}", node)
    return made


def looked(made: SmallMesh, consolidation: Consolidation, now_s: float) -> frozenset[str]:
    plan = made.plan(evacuating=consolidation.evacuating)
    consolidation.look(now_s, plan, made.specs, made.roster, made.view())
    made.apply(plan)
    return consolidation.evacuating


def test_empties_the_emptiest_node_that_was_lightly_used_for_the_delay() -> None:
    made, consolidation = mesh(3, 2, 1), Consolidation(DELAY_S, True)
    assert looked(made, consolidation, 0.0) == frozenset()
    assert looked(made, consolidation, 59.0) == frozenset()
    assert looked(made, consolidation, 60.0) == {"c"}
    assert consolidation.reason == "the replicas of node c fit on fuller nodes"


def test_leaves_the_capacity_of_the_plan_as_it_was() -> None:
    made, consolidation = mesh(2, 1), Consolidation(0.0, True)
    plan = made.plan()
    consolidation.look(0.0, plan, made.specs, made.roster, made.view())
    assert consolidation.evacuating == {"b"}
    assert [load.slots_used for load in plan.capacity.loads.values()] == [2, 1]
    assert not any(load.closed for load in plan.capacity.loads.values())


def test_does_nothing_when_it_is_switched_off() -> None:
    made, consolidation = mesh(3, 1), Consolidation(DELAY_S, False)
    assert not any(looked(made, consolidation, now_s) for now_s in (0.0, 60.0, 120.0))


def test_a_node_used_by_more_than_half_is_left_alone() -> None:
    made, consolidation = mesh(3, 3, slots=5), Consolidation(DELAY_S, True)
    assert not any(looked(made, consolidation, now_s) for now_s in (0.0, 60.0))


def test_replicas_that_do_not_all_fit_on_fuller_nodes_stay() -> None:
    made, consolidation = mesh(3, 2), Consolidation(DELAY_S, True)
    assert not any(looked(made, consolidation, now_s) for now_s in (0.0, 60.0))
    # b would fit on c, which is empty: nothing would be won.
    made, consolidation = mesh(4, 2, 0), Consolidation(DELAY_S, True)
    assert not any(looked(made, consolidation, now_s) for now_s in (0.0, 60.0))


def test_replicas_that_spread_stay() -> None:
    made, consolidation = mesh(2, 1, strategy=Strategy.SPREAD), Consolidation(DELAY_S, True)
    assert not any(looked(made, consolidation, now_s) for now_s in (0.0, 60.0))


def test_waits_while_a_replica_starts_or_leaves_or_lacks_a_place() -> None:
    for trouble in ("starting", "unplaced", "leaving"):
        made, consolidation = mesh(3, 1), Consolidation(DELAY_S, True)
        looked(made, consolidation, 0.0)
        if trouble == "starting":
            made.states["a0-a"] = State.STARTING
        elif trouble == "unplaced":
            made.declare("big", 1, Demand(gpus=8))
        else:
            made.targets["a0"] = 0
        assert not looked(made, consolidation, 60.0), trouble


def test_moves_the_replicas_one_by_one_and_ends_when_the_node_is_empty() -> None:
    made, consolidation = mesh(2, 1), Consolidation(DELAY_S, True)
    looked(made, consolidation, 0.0)
    assert looked(made, consolidation, 60.0) == {"b"}
    looked(made, consolidation, 61.0)
    assert sorted(r.share.node for r in made.roster.of("b0").values()) == ["a", "b"]
    made.all_ready()
    looked(made, consolidation, 62.0)
    assert [r.share.node for r in made.roster.of("b0").values()] == ["a"]
    assert looked(made, consolidation, 63.0) == frozenset()
    assert consolidation.reason == "node b is empty"


def test_is_called_off_when_demand_comes_up() -> None:
    made, consolidation = mesh(2, 1), Consolidation(DELAY_S, True)
    looked(made, consolidation, 0.0)
    looked(made, consolidation, 60.0)
    made.declare("more", 5, Demand())
    assert looked(made, consolidation, 61.0) == frozenset()
    assert consolidation.reason == "replicas have no place"
    assert not made.plan().steps["more"].unplaced
    # It has to be lightly used for the whole delay again.
    made.targets["more"] = 0
    made.apply(made.plan())
    assert not any(looked(made, consolidation, now_s) for now_s in (62.0, 63.0, 121.0))
    assert looked(made, consolidation, 122.0) == {"b"}


def test_is_called_off_when_a_replica_fails_elsewhere() -> None:
    made, consolidation = mesh(2, 1), Consolidation(DELAY_S, True)
    for now_s in (0.0, 60.0, 61.0):
        looked(made, consolidation, now_s)
    new = next(k for k, r in made.roster.of("b0").items() if r.share.node == "a")
    made.states[new] = State.FAILED
    assert looked(made, consolidation, 62.0) == frozenset()
    looked(made, consolidation, 63.0)
    assert [r.share.node for r in made.roster.of("b0").values()] == ["b"]


def test_never_goes_to_and_fro() -> None:
    gpus = {name: tuple(Gpu(f"{name}-{i}") for i in range(2)) for name in "abcdef"}
    made = SmallMesh([Node(name, 4, gpus[name]) for name in "abcdef"])
    shapes = (Demand(), Demand(0.5), Demand(1.0), Demand(0.25))
    for i, node in enumerate("abcdefabcdef"):
        made.declare(f"d{i}", 1, shapes[i % 4])
        uuids = (f"{node}-{i // 6}",) if shapes[i % 4].gpus else ()
        made.assign(f"d{i}", node, uuids)
    consolidation = Consolidation(DELAY_S, True)
    emptied: list[str] = []
    for tick in range(2000):
        before = consolidation.evacuating
        after = looked(made, consolidation, float(tick))
        made.all_ready()
        if after and after != before:
            emptied += after
    assert len(emptied) == len(set(emptied)) <= 5
    assert not consolidation.evacuating
    assert len({r.share.node for r in made.roster.by_id.values()}) == 6 - len(emptied)
