"""What the built-in page holds of each instant, and what it calls trouble."""

import pytest

from forebay.v1.deployment_pb2 import DeploymentStatus
from forebay.v1.metrics_pb2 import DeploymentLoad, Snapshot
from forebay.v1.node_pb2 import Gpu, Node, ReplicaStatus
from services.metrics.page import answers, points, trouble
from services.metrics.page.history import Series
from services.metrics.page.sampler import Look
from services.metrics.page.trouble import Level


def _load(name: str = "add", **fields: object) -> DeploymentLoad:
    known = {"queued_count": 0, "ongoing_count": 0}
    return DeploymentLoad(deployment=f"deployments/{name}", **{**known, **fields})


def test_what_a_load_does_not_say_is_not_known() -> None:
    values = points.of_deployment(DeploymentLoad(ready_replica_count=1), None)
    assert values["ready"] == 1
    for name in ("queued", "ongoing", "arrivals_per_s", "target", "assigned"):
        assert values[name] is None
    assert "queue_wait_p95_s" not in values


def test_target_and_assigned_come_from_the_autoscalers_status() -> None:
    status = DeploymentStatus(target_replica_count=3, assigned_replica_count=2)
    values = points.of_deployment(_load(), status)
    assert (values["target"], values["assigned"]) == (3, 2)


def test_a_sum_of_which_a_part_is_not_known_is_only_a_least() -> None:
    loads = [_load("a", queued_count=3), DeploymentLoad(deployment="deployments/b")]
    values = points.of_mesh(Snapshot(deployments=loads), [])
    assert values["queued"] is None
    assert values["queued_at_least"] == 3
    values = points.of_mesh(Snapshot(deployments=loads[:1]), [])
    assert values["queued"] == 3
    assert "queued_at_least" not in values
    assert values["target"] is None


def test_gpus_of_a_silent_node_are_in_no_sum() -> None:
    gpu = Gpu(uuid="a", memory_total_bytes=10, memory_used_bytes=4, utilization_ratio=0.5)
    nodes = [
        Node(name="nodes/a", gpus=[gpu], state=Node.STATE_ACTIVE),
        Node(name="nodes/b", gpus=[gpu], state=Node.STATE_OFFLINE),
    ]
    values = points.of_mesh(Snapshot(nodes=nodes), [])
    assert values["gpu_memory_total_bytes"] == 10
    assert (values["nodes_up"], values["nodes_offline"]) == (1, 1)
    assert "gpu_memory_total_bytes" not in points.of_mesh(Snapshot(nodes=nodes[1:]), [])


def test_what_is_not_known_of_a_gpu_is_a_gap_and_in_no_mean() -> None:
    measured = Gpu(uuid="a", memory_total_bytes=10, memory_used_bytes=4, utilization_ratio=0.5)
    instance = Gpu(uuid="b", memory_total_bytes=5, memory_used_bytes=1, mig_parent_uuid="c")
    lost = Gpu(uuid="d", memory_total_bytes=10, health=Gpu.HEALTH_LOST)
    assert points.of_gpu(instance)["utilization_ratio"] is None
    assert set(points.of_gpu(lost).values()) == {None}
    node = Node(name="nodes/a", gpus=[measured, instance, lost], state=Node.STATE_ACTIVE)
    values = points.of_mesh(Snapshot(nodes=[node]), [])
    assert values["gpu_utilization_mean_ratio"] == values["gpu_utilization_max_ratio"] == 0.5
    assert (values["gpu_memory_used_bytes"], values["gpu_memory_total_bytes"]) == (5, 15)
    node = Node(name="nodes/a", gpus=[instance], state=Node.STATE_ACTIVE)
    assert points.of_mesh(Snapshot(nodes=[node]), [])["gpu_utilization_mean_ratio"] is None


def test_memory_that_was_not_measured_is_not_zero() -> None:
    replicas = [
        ReplicaStatus(deployment="deployments/add", resident_memory_bytes=5),
        ReplicaStatus(deployment="deployments/add", resident_memory_bytes=6),
    ]
    node = Node(name="nodes/a", state=Node.STATE_ACTIVE, replicas=replicas)
    assert points.of_memory([node]) == {"deployments/add": {"resident_memory_bytes": 11}}


@pytest.mark.parametrize(
    ("before", "now"), [(None, {"ok": 1}), ({"ok": 1}, None), ({"ok": 5}, {"ok": 1})]
)
def test_rates_are_not_known_after_a_new_beginning(before: object, now: object) -> None:
    assert points.rates(before, now, 2.0) == {}


def test_rates_are_per_second() -> None:
    found = points.rates({"ok": 1}, {"ok": 5, "internal": 1}, 2.0)
    assert found == {"outcome_ok": 2.0, "outcome_internal": 0.5}


@pytest.mark.parametrize(
    ("values", "status", "failing", "level", "words"),
    [
        ({"queued": 0, "ready": 1}, None, None, Level.FINE, ""),
        ({"queued": None, "ready": 1}, None, None, Level.WARNING, "not known"),
        ({"queued": 4, "ready": 0}, None, None, Level.BAD, "no replica comes"),
        ({"queued": 4, "starting": 1}, None, None, Level.NOTICE, "from zero"),
        ({"queued": 0, "failed": 2}, None, None, Level.BAD, "failed: 2"),
        (
            {"queued": 0},
            DeploymentStatus(unplaced_replica_count=1),
            None,
            Level.BAD,
            "without a place: 1",
        ),
        ({"queued": 0}, DeploymentStatus(warnings=["too much"]), None, Level.WARNING, "too much"),
        ({"queued": 1, "ready": 1, "oldest_queued_age_s": 20}, None, None, Level.WARNING, "20 s"),
        ({"queued": 0}, None, 0.01, Level.FINE, ""),
        ({"queued": 0}, None, 0.1, Level.WARNING, "10% of attempts"),
        ({"queued": 0}, None, 0.9, Level.BAD, "90% of attempts"),
        ({"queued": 0, "dead_tasks": 3}, None, None, Level.NOTICE, "dead letters: 3"),
    ],
)
def test_names_trouble(
    values: dict[str, float | None],
    status: DeploymentStatus | None,
    failing: float | None,
    level: Level,
    words: str,
) -> None:
    found = trouble.of_deployment(values, status, failing)
    assert max((one.level for one in found), default=Level.FINE) == level
    assert words in " ".join(one.text for one in found)


def test_names_trouble_of_nodes() -> None:
    assert trouble.of_node(Node(state=Node.STATE_ACTIVE)) == []
    (silent,) = trouble.of_node(Node(state=Node.STATE_OFFLINE))
    assert silent.level == Level.BAD
    gpu = Gpu(uuid="GPU-1", health=Gpu.HEALTH_FAULTY, health_message="Xid 79")
    (faulty,) = trouble.of_node(Node(state=Node.STATE_ACTIVE, gpus=[gpu]))
    assert faulty.text == "GPU GPU-1: Xid 79"


def test_deployments_in_trouble_come_first() -> None:
    look = Look(
        loads={
            "calm": _load("calm", ready_replica_count=1),
            "busy": _load("busy", ready_replica_count=1, queued_count=3),
            "bad": _load("bad", failed_replica_count=1),
        }
    )
    assert [row["name"] for row in answers.deployments(look, {})] == ["bad", "busy", "calm"]


def test_what_replicas_say_is_not_told() -> None:
    said = ReplicaStatus(
        replica_id="add-1", deployment="deployments/add", message="password=hunter2"
    )
    node = Node(name="nodes/a", state=Node.STATE_ACTIVE, replicas=[said])
    rows = answers.replicas(Look(nodes={"a": node}), "add")
    assert len(rows) == 1
    assert "hunter2" not in str(rows)


def test_callers_faults_are_not_the_meshs() -> None:
    values = {"outcome_ok": [1.0, None], "outcome_invalid_argument": [3.0, 1.0]}
    assert answers.failing_ratio(Series((0, 2), [0, 2], values)) == 0
    values["outcome_internal"] = [5.0, None]
    assert answers.failing_ratio(Series((0, 2), [0, 2], values)) == 0.5
    assert answers.failing_ratio(Series((0, 0), [], {})) is None
