"""From what is declared, assigned and reported to what each node must run."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from google.protobuf.duration_pb2 import Duration

from forebay.v1.autoscaler_pb2 import Assignment, AssignmentSet
from forebay.v1.deployment_pb2 import Canary, Deployment, DeploymentStatus, ReplicaResources
from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Gpu, Node, ReplicaStatus
from services.autoscaler import status
from services.autoscaler.assignments import assigned_of, next_assignments, share_of, spec_of
from services.autoscaler.plan import Plan, plan
from services.autoscaler.presence import Absences, Leaving
from services.autoscaler.rollout import Step
from services.autoscaler.roster import Roster
from services.autoscaler.view import view_of


def deployment(name: str, replicas: int = 1, gpus: float = 0.0, generation: int = 1) -> Deployment:
    return Deployment(
        name=f"deployments/{name}",
        model_digest=f"digest-{generation}",
        replicas=replicas,
        resources=ReplicaResources(gpus=gpus),
        generation=generation,
        max_ongoing_requests=4,
        request_timeout=Duration(seconds=60),
        canary=Canary(mode=Canary.MODE_ZEROS),
    )


def node(
    name: str,
    *replicas: ReplicaStatus,
    slots: int = 4,
    gpus: int = 0,
    state: Node.State = Node.STATE_ACTIVE,
    applied: int = 0,
    silent_s: int = 0,
    cpus: float = 0,
) -> Node:
    made = Node(
        name=f"nodes/{name}",
        slot_count=slots,
        gpus=[Gpu(uuid=f"{name}-{i}", memory_total_bytes=1 << 34) for i in range(gpus)],
        replicas=replicas,
        state=state,
        applied_revision=applied,
        cpus=cpus,
    )
    made.last_report_time.FromSeconds(1000 - silent_s)
    return made


def seen(*nodes: Node) -> Snapshot:
    made = Snapshot(nodes=nodes)
    made.sample_time.FromSeconds(1000)
    return made


@dataclass
class Planned:
    """A plan, and what each node must run by it."""

    plan: Plan
    sets: dict[str, AssignmentSet]

    @property
    def steps(self) -> Mapping[str, Step]:
        return self.plan.steps

    def of(self, node: str) -> list[Assignment]:
        return list(self.sets[node].assignments)


def planned(
    deployments: list[Deployment],
    snapshot: Snapshot,
    before: Planned | None = None,
    leaving: Leaving | None = None,
    **more: object,
) -> Planned:
    # Ids that were not given out before.
    numbers = count(100 if before else 1)
    sets = dict(before.sets) if before else {}
    by_id = {made.name.removeprefix("deployments/"): made for made in deployments}
    roster = Roster()
    for name, held in sets.items():
        roster.put(name, assigned_of(name, held))
    view = view_of(snapshot)
    made = plan(
        {name: spec_of(declared) for name, declared in by_id.items()},
        {name: declared.replicas for name, declared in by_id.items()},
        roster,
        view,
        lambda name: f"{name}-{next(numbers)}",
        leaving=leaving.current(view) if leaving else {},
        **more,
    )
    for name, change in made.changes.items():
        assignments = next_assignments(sets.get(name), change, by_id)
        sets[name] = AssignmentSet(assignments=assignments, revision=1)
    return Planned(made, sets)


def running(assigned: Planned, name: str, state: ReplicaStatus.State) -> list[ReplicaStatus]:
    return [
        ReplicaStatus(
            replica_id=a.replica_id,
            deployment=a.deployment,
            generation=a.generation,
            gpu_uuids=a.gpu_uuids,
            gpus=a.resources.gpus,
            state=state,
            message="out of memory",
        )
        for a in assigned.of(name)
    ]


def test_an_assignment_carries_all_that_a_replica_needs() -> None:
    made = planned([deployment("add", gpus=0.5)], seen(node("a", gpus=1)))
    (assignment,) = made.of("a")
    assert assignment.replica_id == "add-1"
    assert assignment.deployment == "deployments/add"
    assert assignment.model_digest == "digest-1"
    assert list(assignment.gpu_uuids) == ["a-0"]
    assert assignment.request_timeout.seconds == 60
    assert assignment.canary.mode == Canary.MODE_ZEROS


@dataclass(frozen=True)
class Decided:
    name: str
    traceparent: str = "00-00-00-01"


def test_an_assignment_says_which_image_and_decision_it_is_from_and_keeps_both_for_life() -> None:
    declared = deployment("add", 2)
    declared.image = "triton:1"
    specs, view = {"add": spec_of(declared)}, view_of(seen(node("a")))
    made = plan(specs, {"add": 1}, Roster(), view, lambda _: "add-1")
    first = next_assignments(None, made.changes["a"], {"add": declared}, lambda _: Decided("one"))
    assert [(a.image, a.scale_decision) for a in first] == [("triton:1", "one")]
    assert first[0].traceparent == "00-00-00-01"
    roster = Roster()
    before = AssignmentSet(assignments=first)
    roster.put("a", assigned_of("a", before))
    made = plan(specs, {"add": 2}, roster, view, lambda _: "add-2")
    both = next_assignments(before, made.changes["a"], {"add": declared}, lambda _: Decided("two"))
    assert [a.scale_decision for a in both] == ["one", "two"]


def test_looking_again_changes_nothing() -> None:
    deployments = [deployment("add", 2), deployment("mul", 1)]
    first = planned(deployments, seen(node("a")))
    snapshot = seen(node("a", *running(first, "a", ReplicaStatus.STATE_READY)))
    again = planned(deployments, snapshot, first)
    assert not again.plan.changes
    assert again.plan.settled


def test_two_deployments_never_get_the_same_share() -> None:
    deployments = [deployment("add", 1, gpus=1), deployment("mul", 1, gpus=1)]
    made = planned(deployments, seen(node("a", gpus=1)))
    assert [a.deployment for a in made.of("a")] == ["deployments/add"]
    assert made.steps["mul"].unplaced == 1


def test_a_replica_that_is_still_stopping_holds_its_share() -> None:
    draining = ReplicaStatus(
        replica_id="old-1",
        deployment="deployments/old",
        state=ReplicaStatus.STATE_DRAINING,
        gpu_uuids=["a-0"],
        gpus=1.0,
    )
    made = planned([deployment("add", 1, gpus=1)], seen(node("a", draining, gpus=1)))
    assert made.steps["add"].unplaced == 1
    draining.state = ReplicaStatus.STATE_STOPPED
    made = planned([deployment("add", 1, gpus=1)], seen(node("a", draining, gpus=1)))
    assert made.steps["add"].unplaced == 0


def test_what_was_removed_holds_its_share_until_the_node_has_heard_of_it() -> None:
    first = planned([deployment("old", 1, gpus=1)], seen(node("a", gpus=1)))
    leaving = Leaving()
    held = first.of("a")[0]
    leaving.add(held.replica_id, "old", share_of("a", held), revision=2)
    not_heard = seen(node("a", gpus=1, applied=1))
    assert planned([deployment("add", 1, gpus=1)], not_heard, leaving=leaving).steps["add"].unplaced
    heard = seen(node("a", gpus=1, applied=2))
    assert not planned([deployment("add", 1, gpus=1)], heard, leaving=leaving).steps["add"].unplaced


def test_what_was_noted_as_leaving_and_is_assigned_still_holds_its_share_once() -> None:
    first = planned([deployment("add", 1)], seen(node("a", slots=2)))
    leaving = Leaving()
    held = first.of("a")[0]
    leaving.add(held.replica_id, "add", share_of("a", held), revision=2)
    again = planned([deployment("add", 2)], seen(node("a", slots=2)), first, leaving=leaving)
    assert len(again.steps["add"].create) == 1


def test_what_makes_room_holds_its_share_until_it_has_stopped() -> None:
    first = planned([deployment("add", 2)], seen(node("a", slots=2)))
    ready = seen(node("a", *running(first, "a", ReplicaStatus.STATE_READY), slots=2))
    made = planned([deployment("add", 2, generation=2)], ready, first)
    assert len(made.steps["add"].remove) == 1
    assert made.plan.capacity.loads["a"].slots_used == 2


def test_a_new_request_timeout_reaches_running_replicas() -> None:
    first = planned([deployment("add")], seen(node("a")))
    changed = deployment("add")
    changed.request_timeout.seconds = 5
    made = planned([changed], seen(node("a")), first)
    assert made.of("a")[0].replica_id == first.of("a")[0].replica_id
    assert made.of("a")[0].request_timeout.seconds == 5


def test_the_replicas_of_a_deleted_deployment_go() -> None:
    first = planned([deployment("add", 2)], seen(node("a")))
    assert planned([], seen(node("a")), first).of("a") == []


def test_a_node_that_is_offline_is_gone_after_the_grace_period() -> None:
    absences = Absences(grace_s=10.0)
    for silent_s, expected in [(9, set()), (11, {"a"})]:
        offline = node("a", state=Node.STATE_OFFLINE, silent_s=silent_s)
        assert absences.gone(0.0, view_of(seen(offline)), ["a"]) == expected
    assert absences.gone(0.0, view_of(seen(node("a", state=Node.STATE_DRAINING))), ["a"]) == {"a"}


def test_a_node_that_metrics_does_not_know_has_the_full_grace_period_to_report() -> None:
    absences = Absences(grace_s=10.0)
    assert absences.gone(500.0, view_of(seen()), ["a"]) == set()
    assert absences.gone(509.0, view_of(seen()), ["a"]) == set()
    assert absences.gone(511.0, view_of(seen()), ["a"]) == {"a"}
    assert absences.gone(512.0, view_of(seen(node("a"))), ["a"]) == set()
    assert absences.gone(600.0, view_of(seen()), ["a"]) == set()


def described(
    deployments: list[Deployment], snapshot: Snapshot, before: Planned | None = None
) -> DeploymentStatus:
    made = planned(deployments, snapshot, before)
    return status.describe(
        spec_of(deployments[0]), made.steps["add"], view_of(snapshot), "2 are wanted", 2.5
    )


def message(
    deployments: list[Deployment], snapshot: Snapshot, before: Planned | None = None
) -> str:
    return described(deployments, snapshot, before).message


def test_the_status_says_why_replicas_are_not_ready() -> None:
    asked = [deployment("add", 2)]
    assert message(asked, seen()) == (
        "2 replicas have no place: there is no node yet; start a node agent"
    )
    assert message(asked, seen(node("a", slots=1), node("b", slots=0))) == (
        "1 replica has no place: a: all 1 slots are taken, b: it has no CPU slots; "
        "1 of 2 replicas is starting"
    )
    first = planned(asked, seen(node("a")))
    failed = seen(node("a", *running(first, "a", ReplicaStatus.STATE_FAILED)))
    assert message(asked, failed, first) == (
        "replica add-1 on a failed: out of memory; replica add-2 on a failed: out of memory"
    )
    ready = seen(node("a", *running(first, "a", ReplicaStatus.STATE_READY)))
    assert message(asked, ready, first) == ""
    assert message([deployment("add", 2, generation=2)], ready, first) == (
        "1 of 2 replicas is starting; "
        "generation 2 replaces generation 1: 0 of 2 replicas are replaced"
    )


def test_the_status_says_what_was_decided_and_what_can_never_fit() -> None:
    told = described([deployment("add", 2, gpus=8)], seen(node("a", gpus=2), node("b")))
    assert (told.target_replica_count, told.unplaced_replica_count) == (2, 2)
    assert told.decision_reason == "2 are wanted"
    assert told.startup_time.ToMilliseconds() == 2500
    assert told.message == ("2 replicas can never fit: it needs 8 GPUs, the largest node has 2")


def test_a_node_lost_and_back_within_the_grace_period_moves_nothing() -> None:
    deployments = [deployment("add", 2)]
    first = planned(deployments, seen(node("a"), node("b")))
    absences = Absences(grace_s=10.0)
    away = seen(node("a", state=Node.STATE_OFFLINE, silent_s=9), node("b"))
    gone = absences.gone(0.0, view_of(away), ["a"])
    assert not planned(deployments, away, first, gone=gone).plan.changes
    back = seen(node("a", *running(first, "a", ReplicaStatus.STATE_READY)), node("b"))
    assert not planned(deployments, back, first).plan.changes
    away = seen(node("a", state=Node.STATE_OFFLINE, silent_s=11), node("b"))
    gone = absences.gone(0.0, view_of(away), ["a"])
    moved = planned(deployments, away, first, gone=gone)
    assert [len(moved.of(name)) for name in ("a", "b")] == [0, 2]


def test_a_replica_that_leaves_holds_its_cpus_until_it_is_not_reported_any_more() -> None:
    asked = deployment("old", 1)
    asked.resources.cpus = 4
    first = planned([asked], seen(node("a", cpus=4)))
    leaving = Leaving()
    held = first.of("a")[0]
    leaving.add(held.replica_id, "old", share_of("a", held), revision=2)
    new = deployment("new", 1)
    new.resources.cpus = 4
    draining = running(first, "a", ReplicaStatus.STATE_DRAINING)
    still = planned([new], seen(node("a", *draining, cpus=4, applied=2)), leaving=leaving)
    assert still.steps["new"].unplaced == 1
    left = planned([new], seen(node("a", cpus=4, applied=2)), leaving=leaving)
    assert left.steps["new"].unplaced == 0


def test_a_deployment_without_a_target_keeps_what_it_has() -> None:
    first = planned([deployment("add", 2)], seen(node("a")))
    roster = Roster()
    roster.put("a", assigned_of("a", first.sets["a"]))
    view = view_of(seen(node("a")))
    made = plan({"add": spec_of(deployment("add"))}, {}, roster, view, str)
    assert not made.changes
    assert made.steps["add"].target == 2


def test_one_that_asks_for_much_does_not_keep_others_from_their_first() -> None:
    asked = [deployment("much", 10), deployment("some", 2), deployment("one", 1)]
    made = planned(asked, seen(node("a", slots=5)))
    assert {name: len(step.create) for name, step in made.steps.items()} == {
        "much": 3,
        "some": 1,
        "one": 1,
    }
    assert made.steps["much"].unplaced == 7


def test_placements_of_one_look_are_bounded_and_go_on_in_the_next() -> None:
    asked = [deployment("add", 3), deployment("mul", 3)]
    first = planned(asked, seen(node("a", slots=6)), max_placements=4)
    assert [len(first.steps[name].create) for name in ("add", "mul")] == [2, 2]
    assert first.steps["add"].deferred == 1
    assert first.steps["add"].unplaced == 0
    second = planned(asked, seen(node("a", slots=6)), first, max_placements=4)
    assert [len(second.steps[name].create) for name in ("add", "mul")] == [1, 1]


def test_more_demands_than_one_look_has_time_for_get_their_turn() -> None:
    asked = [deployment(f"d{i}", 1) for i in range(150)]
    for i, made in enumerate(asked):
        made.resources.cpus = 1 + i / 100
    placed: Planned | None = None
    for turn in range(2):
        placed = planned(asked, seen(node("a", slots=200, cpus=1000)), placed, turn=turn)
        assert sum(len(step.create) for step in placed.steps.values()) == (50 if turn else 100)
