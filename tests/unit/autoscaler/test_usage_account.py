"""What replicas held is counted once, over hours, restarts and clocks that are wrong."""

import random

import pytest

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Node, ReplicaStatus
from services.autoscaler.usage.account import (
    FORGET_S,
    HOUR_S,
    MAX_REPLICAS,
    Account,
    Accounts,
    Holding,
)
from services.autoscaler.usage.whereabouts import still_there

T0 = 500_000 * float(HOUR_S)
HALF = ("add", Holding("a", 0.5))


def accounts(kept: dict[str, Account] | None = None) -> Accounts:
    return Accounts(kept or {})


def taken_over(before: Accounts, node: str = "a", **held: tuple[str, Holding]) -> Accounts:
    """What another autoscaler makes of what was written."""
    kept = {name: Account.read(a.write()) for name, a in before.by_deployment.items()}
    after = Accounts(kept)
    after.assign(node, 9, {key.replace("_", "-"): value for key, value in held.items()}, T0)
    after.all_assigned({node: 9})
    return after


def total(of: Accounts, deployment: str = "add") -> tuple[float, float]:
    hours = of.by_deployment[deployment].hours.values()
    return round(sum(h.replica_s for h in hours), 3), round(sum(h.gpu_s for h in hours), 3)


def test_a_replica_counts_from_when_it_is_assigned_with_the_share_of_the_gpu_it_holds() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0)
    made.settle(T0 + 100)
    made.settle(T0 + 160)
    assert total(made) == (160, 80)


def test_time_is_split_at_each_full_hour_in_utc() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0 + 3000)
    made.settle(T0 + 2 * HOUR_S + 5)
    hours = made.by_deployment["add"].hours
    first = int(T0 // HOUR_S)
    assert {hour: total.replica_s for hour, total in hours.items()} == {
        first: 600,
        first + 1: 3600,
        first + 2: 5,
    }


def test_a_replica_that_leaves_counts_while_its_node_reports_it() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0)
    made.assign("a", 2, {}, T0 + 10)
    assert made.leaving() == {"add-1": ("a", 2)}
    made.settle(T0 + 50)
    assert total(made)[0] == 10, "nothing is known of it"
    made.look({"add-1": True}, T0 + 60)
    assert total(made)[0] == 60
    made.look({"add-1": False}, T0 + 70)
    made.settle(T0 + 100)
    assert total(made)[0] == 60
    assert not made.by_deployment["add"].replicas


def test_a_replica_of_which_nothing_is_heard_is_given_up() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0)
    made.assign("a", 2, {}, T0 + 10)
    made.look({}, T0 + FORGET_S)
    assert made.leaving()
    made.look({}, T0 + 11 + FORGET_S)
    assert not made.leaving()
    assert total(made)[0] == 10


def test_time_without_a_leader_counts_for_what_was_assigned_before_and_after() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF, "add-2": HALF}, T0 - 1000)
    made.settle(T0 - 900)
    after = taken_over(made, add_1=HALF)
    after.settle(T0 + 100)
    assert total(after)[0] == 2 * 100 + 1000
    # The other one was there at the last look, and nobody knows since when it is not.
    after.look({"add-2": False}, T0 + 101)
    assert total(after)[0] == 1200
    assert taken_over(after, add_1=HALF).leaving() == {}


def test_one_that_still_runs_after_a_failover_counts_through() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0 - 1000)
    after = taken_over(made)
    assert after.leaving() == {"add-1": ("a", 9)}
    after.look({"add-1": True}, T0 + 5)
    assert total(after)[0] == 1005


def test_a_clock_that_was_wrong_for_a_while_makes_no_difference_to_the_sum() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0)
    made.settle(T0 + 100)
    made.settle(T0 + 5000)
    made.settle(T0 + 200)
    made.settle(T0 + 4999)
    assert total(made)[0] == 5000
    made.settle(T0 + 6000)
    assert total(made)[0] == 6000


def test_an_hour_that_is_written_stays_as_it_is_if_the_clock_goes_back() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0)
    made.settle(T0 + HOUR_S + 1)
    account = made.by_deployment["add"]
    (over,) = account.ended(T0 + HOUR_S + 1)
    account.seal([over])
    made.assign("a", 2, {"add-1": HALF, "add-2": HALF}, T0 + 10)
    made.settle(T0 + HOUR_S - 1)
    assert list(account.hours) == [over + 1]
    assert account.replicas["add-2"].until_s == T0 + HOUR_S


def test_an_hour_is_not_over_while_a_replica_has_time_in_it() -> None:
    made = accounts()
    made.assign("a", 1, {"add-1": HALF}, T0)
    made.settle(T0 + 10)
    made.assign("a", 2, {}, T0 + 10)
    account = made.by_deployment["add"]
    assert account.ended(T0 + 2 * HOUR_S) == []
    made.look({"add-1": False}, T0 + 2 * HOUR_S)
    assert account.ended(T0 + 2 * HOUR_S) == [int(T0 // HOUR_S)]
    account.seal(account.ended(T0 + 2 * HOUR_S))
    assert account.empty


def test_what_is_kept_is_bounded() -> None:
    made = accounts()
    held = {f"add-{i}": ("add", Holding("a" * 63, 0.25)) for i in range(MAX_REPLICAS + 10)}
    made.assign("a" * 63, 1, held, T0 + 0.123456)
    made.settle(T0 + 10)
    account = made.by_deployment["add"]
    assert len(account.replicas) == MAX_REPLICAS
    assert len(account.write()) < 1_000_000


def test_what_cannot_be_read_is_said_to_be() -> None:
    for kept in (b"", b"[]", b"{}", b'{"replicas":{"a":[1]},"hours":{},"sealed_s":0}'):
        with pytest.raises(ValueError, match=r"."):
            Account.read(kept)


def test_however_often_leaders_change_time_is_neither_lost_nor_doubled() -> None:
    rng = random.Random(4)
    for _ in range(50):
        made, now_s, since_s = accounts(), T0, {}
        expected_s, number = 0.0, 0
        held: dict[str, tuple[str, Holding]] = {}
        for revision in range(1, 40):
            now_s += rng.uniform(0, 2000)
            match rng.randrange(4):
                case 0:
                    number += 1
                    held = {**held, f"add-{number}": HALF}
                    since_s[f"add-{number}"] = now_s
                case 1 if held:
                    gone = rng.choice(sorted(held))
                    held = {key: value for key, value in held.items() if key != gone}
                    expected_s += now_s - since_s.pop(gone)
                case 2:
                    # Another one leads, of what the one before has written.
                    kept = {n: Account.read(a.write()) for n, a in made.by_deployment.items()}
                    made = accounts(kept)
                    made.assign("a", revision, held, now_s)
                    made.all_assigned({"a": revision})
                case _:
                    made.settle(now_s)
            made.assign("a", revision, held, now_s)
            made.look(dict.fromkeys(made.leaving(), False), now_s)
        made.settle(now_s)
        expected_s += sum(now_s - s for s in since_s.values())
        if number:
            assert total(made)[0] == pytest.approx(expected_s, abs=0.1)


def snapshot(**fields: object) -> Snapshot:
    return Snapshot(nodes=[Node(**{"name": "nodes/a", "state": Node.STATE_ACTIVE, **fields})])


def test_a_replica_is_gone_once_its_node_has_applied_that_and_reports_it_no_more() -> None:
    leaving = {"add-1": ("a", 5)}
    runs = ReplicaStatus(replica_id="add-1", state=ReplicaStatus.STATE_DRAINING)
    stopped = ReplicaStatus(replica_id="add-1", state=ReplicaStatus.STATE_STOPPED)
    assert still_there(snapshot(applied_revision=4), leaving) == {"add-1": True}
    assert still_there(snapshot(applied_revision=5), leaving) == {"add-1": False}
    assert still_there(snapshot(applied_revision=5, replicas=[runs]), leaving) == {"add-1": True}
    assert still_there(snapshot(applied_revision=5, replicas=[stopped]), leaving) == {
        "add-1": False
    }
    offline = snapshot(applied_revision=4, state=Node.STATE_OFFLINE)
    assert still_there(offline, leaving) == {"add-1": False}
    assert still_there(Snapshot(), leaving) == {}
