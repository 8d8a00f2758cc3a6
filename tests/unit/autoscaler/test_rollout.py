"""A deployment's way from any state to the wanted one, step by step."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

from services.autoscaler.capacity import Demand, Node, Share
from services.autoscaler.placement import Strategy
from services.autoscaler.plan import plan
from services.autoscaler.rollout import Replica, Spec, State, Step
from services.autoscaler.roster import Assigned, Roster
from services.autoscaler.view import ReplicaView, View

CPU = Demand()
NOBODY: frozenset[str] = frozenset()


def ids() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"new-{next(numbers)}"


def replica(
    name: str,
    node: str = "a",
    state: State = State.READY,
    generation: int = 1,
    ongoing: int = 0,
    protected: bool = False,
) -> Replica:
    return Replica(name, generation, Share(node, (), CPU), state, ongoing, protected)


def wanted(
    replicas: int, generation: int = 1, strategy: Strategy = Strategy.COMPACT
) -> tuple[Spec, int]:
    return Spec("add", generation, CPU, strategy), replicas


def run(
    asked: tuple[Spec, int],
    replicas: Iterable[Replica],
    nodes: list[Node] | None = None,
    gone: frozenset[str] = NOBODY,
    others: list[Share] | None = None,
    leaving: bool = False,
    evacuating: frozenset[str] = NOBODY,
    make: Callable[[], str] | None = None,
) -> Step:
    spec, target = asked
    roster = Roster()
    by_node: dict[str, list[Assigned]] = {}
    for r in replicas:
        assigned = Assigned(r.replica_id, "add", r.generation, r.share)
        by_node.setdefault(r.node, []).append(assigned)
    for node, held in by_node.items():
        roster.put(node, held)
    seen = {
        r.replica_id: ReplicaView(r.node, "add", r.generation, r.state, r.ongoing_count)
        for r in replicas
    }
    owner = "add" if leaving else "mul"
    make = make or ids()
    made = plan(
        {"add": spec},
        {"add": target},
        roster,
        View(tuple(nodes if nodes is not None else [Node("a", 10)]), {}, seen, {}),
        lambda _: make(),
        gone=gone,
        evacuating=evacuating,
        leaving={f"left-{i}": (owner, share) for i, share in enumerate(others or [])},
        protected={r.replica_id for r in replicas if r.protected},
    )
    return made.steps["add"]


def removed(done: Step) -> list[str]:
    return [replica.replica_id for replica, _ in done.remove]


def test_creates_what_is_missing() -> None:
    done = run(wanted(3), [replica("x")])
    assert [r.replica_id for r in done.create] == ["new-1", "new-2"]
    assert not done.remove


def test_does_nothing_when_all_is_well() -> None:
    replicas = [replica("x"), replica("y", state=State.STARTING)]
    assert run(wanted(2), replicas) == Step(2, tuple(replicas))


def test_takes_replicas_that_are_not_ready_first_and_then_those_on_the_emptiest_node() -> None:
    replicas = [
        replica("a1", "a"),
        replica("a2", "a"),
        replica("b1", "b"),
        replica("a3", "a", State.STARTING),
        replica("a4", "a", State.FAILED),
    ]
    nodes = [Node("a", 10), Node("b", 10)]
    assert removed(run(wanted(4), replicas, nodes)) == ["a4"]
    assert removed(run(wanted(3), replicas, nodes)) == ["a4", "a3"]
    assert removed(run(wanted(2), replicas, nodes)) == ["a4", "a3", "b1"]


def test_gives_up_replicas_on_a_node_that_is_gone_and_makes_them_good_elsewhere() -> None:
    nodes = [Node("a", 10, closed="it does not report"), Node("b", 10)]
    done = run(wanted(2), [replica("x", "a"), replica("y", "b")], nodes, frozenset({"a"}))
    assert done.remove == ((replica("x", "a"), "node a is gone"),)
    assert [r.node for r in done.create] == ["b"]


def test_starts_one_new_replica_beside_the_old_ones() -> None:
    done = run(wanted(3, 2), [replica("x"), replica("y"), replica("z")])
    assert [r.generation for r in done.create] == [2]
    assert not done.remove


def test_takes_one_old_replica_for_each_new_one_that_is_ready() -> None:
    old = [replica("x"), replica("y"), replica("z")]
    new = replica("n", generation=2)
    waiting = run(wanted(3, 2), [*old, replace(new, state=State.STARTING)])
    assert not waiting.remove
    assert not waiting.create
    assert removed(run(wanted(3, 2), [*old, new])) == ["x"]


def test_a_failed_new_generation_leaves_the_old_one_alone() -> None:
    failed = replica("n", state=State.FAILED, generation=2)
    old = [replica("x"), replica("y")]
    for nodes in ([Node("a", 10)], [Node("a", 3)]):
        done = run(wanted(2, 2), [*old, failed], nodes)
        assert not done.remove
        assert not done.create


def test_a_failed_old_generation_makes_way_at_once() -> None:
    done = run(wanted(1, 2), [replica("x", state=State.FAILED)])
    assert removed(done) == ["x"]
    assert [r.generation for r in done.create] == [2]


def test_old_replicas_that_are_unknown_are_not_taken_for_failed() -> None:
    done = run(wanted(2, 2), [replica("x", state=State.UNKNOWN), replica("y")])
    assert not done.remove


def test_takes_an_old_replica_first_when_there_is_no_room_for_a_new_one() -> None:
    done = run(wanted(2, 2), [replica("x"), replica("y")], [Node("a", 2)])
    assert removed(done) == ["x"]
    assert (done.unplaced, done.short) == (1, 0)
    # What still drains holds its slot; nothing more goes meanwhile.
    draining = [Share("a", (), CPU)]
    again = run(wanted(2, 2), [replica("y")], [Node("a", 2)], others=draining, leaving=True)
    assert not again.remove
    assert (again.unplaced, again.short) == (2, 0)
    then = run(wanted(2, 2), [replica("y")], [Node("a", 2)])
    assert len(then.create) == 1
    assert not then.remove


def test_takes_no_old_replica_when_that_makes_no_room() -> None:
    done = run((Spec("add", 2, Demand(gpus=1)), 1), [replica("x")], [Node("a", 1)])
    assert not done.remove
    assert done.why == "a: it has no GPU"
    assert done.never == "it needs 1 GPU, no node has one"


def test_takes_all_replicas_of_a_deleted_deployment() -> None:
    done = run(wanted(0, 0), [replica("x"), replica("y", state=State.FAILED)])
    assert sorted(removed(done)) == ["x", "y"]
    assert done.keep == ()


def test_changes_of_count_and_generation_at_once_go_together() -> None:
    up = run(wanted(5, 2), [replica("x"), replica("y")])
    assert len(up.create) == 4
    assert not up.remove
    down = run(wanted(1, 2), [replica("x"), replica("y"), replica("z")])
    assert len(down.remove) == 2
    assert len(down.create) == 1


def test_every_rolling_replacement_ends_and_never_falls_below_what_is_wanted() -> None:
    for slots in (4, 5, 8):
        replicas = [replica(f"old-{i}") for i in range(4)]
        make = ids()
        steps = 0
        while any(r.generation == 1 for r in replicas) or len(replicas) < 4:
            done = run(wanted(4, 2), replicas, [Node("a", slots)], make=make)
            created = [replace(r, state=State.READY) for r in done.create]
            replicas = [*done.keep, *created]
            assert len(replicas) >= (4 if slots > 4 else 3)
            assert len(replicas) <= min(slots, 5)
            steps += 1
            assert steps < 20
        assert [r.generation for r in replicas] == [2] * 4


def test_a_busy_replica_is_never_taken_while_an_idle_one_is_there() -> None:
    replicas = [replica("busy", ongoing=1), replica("idle"), replica("busier", ongoing=3)]
    assert removed(run(wanted(2), replicas)) == ["idle"]
    assert removed(run(wanted(1), replicas)) == ["idle", "busy"]


def test_an_idle_replica_goes_before_a_busy_one_of_an_older_generation() -> None:
    old = [replica("busy", generation=1, ongoing=1), replica("idle", generation=2)]
    assert removed(run(wanted(2, 3), [*old, replica("new", generation=3)])) == ["idle"]


def test_of_the_busy_ones_the_one_with_the_fewest_ongoing_requests_drains() -> None:
    nodes = [Node("a", 10), Node("b", 10)]
    replicas = [
        replica("x", "a", ongoing=5),
        replica("y", "a", ongoing=2),
        replica("z", "b", ongoing=9),
    ]
    assert removed(run(wanted(2), replicas, nodes)) == ["y"]


def test_a_replica_that_had_no_chance_yet_is_kept_while_others_can_be_taken() -> None:
    young = replica("young", state=State.STARTING, protected=True)
    overdue = replica("overdue", state=State.STARTING)
    idle = [replica("idle"), replica("other")]
    assert removed(run(wanted(3), [young, overdue, *idle])) == ["overdue"]
    assert removed(run(wanted(2), [young, overdue, *idle])) == ["overdue", "idle"]
    assert removed(run(wanted(0), [young])) == ["young"]
    # Rather than one that works on something.
    busy = [replica("busy", ongoing=1), replica("busier", ongoing=2)]
    assert removed(run(wanted(2), [young, *busy])) == ["young"]


def test_the_only_ready_replica_stays_while_another_one_can_go() -> None:
    young = replica("young", state=State.STARTING, protected=True)
    assert removed(run(wanted(1), [young, replica("idle")])) == ["young"]


def test_a_replica_that_cannot_start_is_neither_multiplied_nor_in_the_way() -> None:
    failed = replica("x", state=State.FAILED)
    assert run(wanted(1), [failed]) == Step(1, (failed,))
    assert removed(run(wanted(1), [failed, replica("y", ongoing=4)])) == ["x"]
    assert removed(run(wanted(0), [failed])) == ["x"]


def test_a_deployment_that_spreads_gives_up_replicas_where_it_has_the_most() -> None:
    nodes = [Node("a", 10), Node("b", 10)]
    replicas = [replica("a1"), replica("a2"), replica("a3"), replica("b1", "b"), replica("b2", "b")]
    asked = {count: wanted(count, strategy=Strategy.SPREAD) for count in (2, 3, 4)}
    assert removed(run(asked[4], replicas, nodes)) == ["a1"]
    kept = run(asked[2], replicas, nodes).keep
    assert sorted(r.node for r in kept) == ["a", "b"]
    # Never a busy one for the sake of spreading.
    busy = [replace(r, ongoing_count=1) if r.node == "a" else r for r in replicas]
    assert removed(run(asked[3], busy, nodes)) == ["b1", "b2"]


def test_a_node_is_emptied_by_starting_elsewhere_first() -> None:
    nodes = [Node("a", 4), Node("b", 4)]
    evacuating = frozenset({"b"})
    here, there = replica("x", "a"), replica("y", "b")
    first = run(wanted(2), [here, there], nodes, evacuating=evacuating)
    assert [r.node for r in first.create] == ["a"]
    assert not first.remove
    started = replica("n", "a", State.STARTING)
    assert run(wanted(2), [here, there, started], nodes, evacuating=evacuating).remove == ()
    ready = replica("n", "a")
    done = run(wanted(2), [here, there, ready], nodes, evacuating=evacuating)
    assert done.remove == ((there, "node b is being emptied"),)


def test_nothing_goes_first_to_empty_a_node() -> None:
    nodes = [Node("a", 1), Node("b", 4)]
    done = run(wanted(2), [replica("x"), replica("y", "b")], nodes, evacuating=frozenset({"b"}))
    assert (done.unplaced, done.short, done.remove) == (1, 0, ())
    assert done.why == "a: all 1 slots are taken, b: it is being emptied"


def test_what_was_started_to_empty_a_node_goes_when_that_is_called_off() -> None:
    nodes = [Node("a", 4), Node("b", 4)]
    replicas = [replica("x"), replica("y", "b"), replica("n", state=State.STARTING)]
    assert removed(run(wanted(2), replicas, nodes)) == ["n"]
