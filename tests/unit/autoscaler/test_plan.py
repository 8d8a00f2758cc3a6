"""From what is declared, assigned and reported to what each node must run."""

from itertools import count

from google.protobuf.duration_pb2 import Duration

from forebay.v1.autoscaler_pb2 import AssignmentSet
from forebay.v1.deployment_pb2 import Canary, Deployment, ReplicaResources
from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Gpu, Node, ReplicaStatus
from services.autoscaler import status
from services.autoscaler.plan import Plan, plan, reported
from services.autoscaler.presence import Absences, Leaving

NOBODY: frozenset[str] = frozenset()


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
) -> Node:
    made = Node(
        name=f"nodes/{name}",
        slot_count=slots,
        gpus=[Gpu(uuid=f"{name}-{i}", memory_total_bytes=1 << 34) for i in range(gpus)],
        replicas=replicas,
        state=state,
        applied_revision=applied,
    )
    made.last_report_time.FromSeconds(1000 - silent_s)
    return made


def seen(*nodes: Node) -> Snapshot:
    made = Snapshot(nodes=nodes)
    made.sample_time.FromSeconds(1000)
    return made


def planned(
    deployments: list[Deployment],
    snapshot: Snapshot,
    sets: dict[str, AssignmentSet] | None = None,
    gone: frozenset[str] = NOBODY,
    leaving: Leaving | None = None,
) -> Plan:
    # Ids that were not given out before.
    numbers = count(100 if sets else 1)
    held = leaving.current(snapshot) if leaving else {}
    by_id = {made.name.removeprefix("deployments/"): made for made in deployments}
    return plan(by_id, sets or {}, snapshot, gone, held, lambda name: f"{name}-{next(numbers)}")


def sets_of(made: Plan) -> dict[str, AssignmentSet]:
    return {n: AssignmentSet(assignments=a, revision=1) for n, a in made.assignments.items()}


def running(assigned: Plan, name: str, state: ReplicaStatus.State) -> list[ReplicaStatus]:
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
        for a in assigned.assignments.get(name, [])
    ]


def test_an_assignment_carries_all_that_a_replica_needs() -> None:
    made = planned([deployment("add", gpus=0.5)], seen(node("a", gpus=1)))
    (assignment,) = made.assignments["a"]
    assert assignment.replica_id == "add-1"
    assert assignment.deployment == "deployments/add"
    assert assignment.model_digest == "digest-1"
    assert list(assignment.gpu_uuids) == ["a-0"]
    assert assignment.request_timeout.seconds == 60
    assert assignment.canary.mode == Canary.MODE_ZEROS


def test_looking_again_changes_nothing() -> None:
    deployments = [deployment("add", 2), deployment("mul", 1)]
    first = planned(deployments, seen(node("a")))
    snapshot = seen(node("a", *running(first, "a", ReplicaStatus.STATE_READY)))
    again = planned(deployments, snapshot, sets_of(first))
    assert again.assignments == first.assignments


def test_two_deployments_never_get_the_same_share() -> None:
    deployments = [deployment("add", 1, gpus=1), deployment("mul", 1, gpus=1)]
    made = planned(deployments, seen(node("a", gpus=1)))
    assert [a.deployment for a in made.assignments["a"]] == ["deployments/add"]
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
    leaving.add_assignment("a", first.assignments["a"][0], revision=2)
    not_heard = seen(node("a", gpus=1, applied=1))
    assert planned([deployment("add", 1, gpus=1)], not_heard, leaving=leaving).steps["add"].unplaced
    heard = seen(node("a", gpus=1, applied=2))
    assert not planned([deployment("add", 1, gpus=1)], heard, leaving=leaving).steps["add"].unplaced


def test_a_new_request_timeout_reaches_running_replicas() -> None:
    first = planned([deployment("add")], seen(node("a")))
    changed = deployment("add")
    changed.request_timeout.seconds = 5
    made = planned([changed], seen(node("a")), sets_of(first))
    assert made.assignments["a"][0].replica_id == first.assignments["a"][0].replica_id
    assert made.assignments["a"][0].request_timeout.seconds == 5


def test_the_replicas_of_a_deleted_deployment_go() -> None:
    first = planned([deployment("add", 2)], seen(node("a")))
    assert planned([], seen(node("a")), sets_of(first)).assignments == {"a": []}


def test_a_node_that_is_offline_is_gone_after_the_grace_period() -> None:
    absences = Absences(grace_s=10.0)
    for silent_s, expected in [(9, set()), (11, {"a"})]:
        offline = node("a", state=Node.STATE_OFFLINE, silent_s=silent_s)
        assert absences.gone(0.0, seen(offline), ["a"]) == expected
    assert absences.gone(0.0, seen(node("a", state=Node.STATE_DRAINING)), ["a"]) == {"a"}


def test_a_node_that_metrics_does_not_know_has_the_full_grace_period_to_report() -> None:
    absences = Absences(grace_s=10.0)
    assert absences.gone(500.0, seen(), ["a"]) == set()
    assert absences.gone(509.0, seen(), ["a"]) == set()
    assert absences.gone(511.0, seen(), ["a"]) == {"a"}
    assert absences.gone(512.0, seen(node("a")), ["a"]) == set()
    assert absences.gone(600.0, seen(), ["a"]) == set()


def message(deployments: list[Deployment], snapshot: Snapshot, sets=None) -> str:
    made = planned(deployments, snapshot, sets)
    step = made.steps["add"]
    return status.describe(deployments[0], step, reported(snapshot), len(snapshot.nodes)).message


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
    assert message(asked, failed, sets_of(first)) == (
        "replica add-1 on a failed: out of memory; replica add-2 on a failed: out of memory"
    )
    ready = seen(node("a", *running(first, "a", ReplicaStatus.STATE_READY)))
    assert message(asked, ready, sets_of(first)) == ""
    assert message([deployment("add", 2, generation=2)], ready, sets_of(first)) == (
        "1 of 2 replicas is starting; "
        "generation 2 replaces generation 1: 0 of 2 replicas are replaced"
    )
