"""A deployment's way from any state to the wanted one, step by step."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from services.autoscaler.placement import Demand, Node, Share
from services.autoscaler.rollout import Replica, State, Step, Wanted, step

CPU = Demand()
NOBODY: frozenset[str] = frozenset()


def ids() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"new-{next(numbers)}"


def replica(name: str, node: str = "a", state: State = State.READY, generation: int = 1) -> Replica:
    return Replica(name, generation, Share(node, (), CPU), state)


def wanted(replicas: int, generation: int = 1) -> Wanted:
    return Wanted("add", replicas, generation, CPU)


def run(
    asked: Wanted,
    replicas: list[Replica],
    nodes: list[Node] | None = None,
    gone: frozenset[str] = NOBODY,
    others: list[Share] | None = None,
    leaving: bool = False,
) -> Step:
    nodes = [Node("a", 10)] if nodes is None else nodes
    return step(asked, replicas, nodes, gone, others or [], leaving, ids())


def removed(done: Step) -> list[str]:
    return [replica.replica_id for replica, _ in done.remove]


def test_creates_what_is_missing() -> None:
    done = run(wanted(3), [replica("x")])
    assert [r.replica_id for r in done.create] == ["new-1", "new-2"]
    assert not done.remove


def test_does_nothing_when_all_is_well() -> None:
    replicas = [replica("x"), replica("y", state=State.STARTING)]
    assert run(wanted(2), replicas) == Step(tuple(replicas), (), ())


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
    assert done.unplaced == 1
    # What still drains holds its slot; nothing more goes meanwhile.
    draining = [Share("a", (), CPU)]
    again = run(wanted(2, 2), [replica("y")], [Node("a", 2)], others=draining, leaving=True)
    assert not again.remove
    assert again.unplaced == 2
    then = run(wanted(2, 2), [replica("y")], [Node("a", 2)])
    assert len(then.create) == 1
    assert not then.remove


def test_takes_no_old_replica_when_that_makes_no_room() -> None:
    asked = Wanted("add", 1, 2, Demand(gpus=1))
    done = step(asked, [replica("x")], [Node("a", 1)], NOBODY, [], False, ids())
    assert not done.remove
    assert done.refusals[0].reason == "it has no GPU"


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
            done = step(wanted(4, 2), replicas, [Node("a", slots)], NOBODY, [], False, make)
            created = [replace(r, state=State.READY) for r in done.create]
            replicas = [*done.keep, *created]
            assert len(replicas) >= (4 if slots > 4 else 3)
            assert len(replicas) <= min(slots, 5)
            steps += 1
            assert steps < 20
        assert [r.generation for r in replicas] == [2] * 4
