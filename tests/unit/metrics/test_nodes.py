"""Which nodes there are, over hours that take no time."""

import pytest

from forebay.v1.node_pb2 import (
    REPLICA_RUNTIME_DOCKER,
    Gpu,
    Histogram,
    Node,
    NodeRegistration,
    NodeReport,
    ReplicaStatus,
)
from services.metrics import nodes
from services.metrics.nodes import NodeTable, TooManyNodesError
from services.metrics.report_check import Refusal, ReportError


def registration(node: str = "node-a", instance_id: str = "1") -> NodeRegistration:
    return NodeRegistration(node=f"nodes/{node}", instance_id=instance_id)


def replica(**fields: object) -> ReplicaStatus:
    return ReplicaStatus(**{"replica_id": "add-1", "deployment": "deployments/add", **fields})


def table_with(report: NodeReport, now_s: float = 0.0) -> NodeTable:
    table = NodeTable(grace_s=5.0)
    table.register(now_s, registration())
    table.report(now_s, 1000.0, "node-a", report)
    return table


def test_a_node_appears_with_its_first_report() -> None:
    table = NodeTable(grace_s=5.0)
    table.register(0.0, registration())
    assert table.nodes(0.0) == []
    assert table.report(0.0, 1000.0, "node-a", NodeReport(slot_count=2)).first
    assert not table.report(1.0, 1001.0, "node-a", NodeReport(slot_count=2)).first
    (node,) = table.nodes(1.0)
    assert (node.name, node.slot_count, node.state) == ("nodes/node-a", 2, Node.STATE_ACTIVE)


def test_a_silent_node_is_offline_after_the_grace_period_and_forgotten_after_an_hour() -> None:
    table = table_with(NodeReport())
    assert table.nodes(5.0)[0].state == Node.STATE_ACTIVE
    assert table.nodes(5.1)[0].state == Node.STATE_OFFLINE
    table.forget(3600.0)
    assert table.nodes(3600.0)[0].state == Node.STATE_OFFLINE
    table.forget(3600.1)
    assert table.nodes(3600.1) == []


def test_a_draining_node_says_so() -> None:
    assert table_with(NodeReport(draining=True)).nodes(0.0)[0].state == Node.STATE_DRAINING


def test_a_new_process_of_a_known_node_is_noticed() -> None:
    table = table_with(NodeReport())
    assert table.register(1.0, registration()) == ("node-a", False)
    assert table.register(2.0, registration(instance_id="2")) == ("node-a", True)
    assert table.nodes(2.0)[0].state == Node.STATE_ACTIVE


def test_the_number_of_nodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MAX_NODES", 1)
    table = table_with(NodeReport())
    with pytest.raises(TooManyNodesError):
        table.register(0.0, registration("node-b"))


def test_finds_the_node_that_holds_a_replica() -> None:
    table = table_with(NodeReport(replicas=[replica()]))
    assert table.holder("add-1") == "node-a"
    assert table.holder("add-2") is None


@pytest.mark.parametrize("name", ["", "node-a", "nodes/a.b", "nodes/" + "a" * 10_000])
def test_refuses_names_that_cannot_name_a_node(name: str) -> None:
    with pytest.raises(ReportError, match=r"registration\.node"):
        NodeTable(5.0).register(0.0, NodeRegistration(node=name, instance_id="1"))


def test_outcomes_that_are_not_known_become_no_label() -> None:
    table = table_with(NodeReport())
    report = NodeReport(replicas=[replica(attempt_counts={"ok": 1, "exploded": 2})])
    (counted,) = table.report(1.0, 1001.0, "node-a", report).counts[-1]
    assert counted.attempts == {"ok": 1}


def served(*ids: str, ok: int) -> NodeReport:
    return NodeReport(replicas=[replica(replica_id=i, attempt_counts={"ok": ok}) for i in ids])


def test_counts_are_read_now_and_then_and_at_once_when_a_replica_comes_or_goes() -> None:
    table = NodeTable(5.0, count_interval_s=3.0)
    table.register(0.0, registration())

    def read(now_s: float, *ids: str, ok: int) -> list[list[tuple[str, int]]]:
        taken = table.report(now_s, 1000.0, "node-a", served(*ids, ok=ok))
        return [[(c.replica_id, c.attempts["ok"]) for c in counts] for counts in taken.counts]

    assert read(0.0, "a", "b", ok=1) == [[], [("a", 1), ("b", 1)]]
    assert read(1.0, "a", "b", ok=2) == []
    assert read(3.0, "a", "b", ok=3) == [[("a", 3), ("b", 3)]]
    assert read(4.0, "a", "b", ok=4) == []
    assert read(5.0, "a", ok=5) == [[("a", 4), ("b", 4)], [("a", 5)]]
    assert [c.attempts["ok"] for c in table.uncounted("node-a")] == [5]


def test_a_node_says_what_it_has() -> None:
    report = NodeReport(slot_count=2, cpus=8, memory_bytes=1 << 34, custom={"licence": 3})
    table = table_with(report)
    for node in (table.node(0.0, "node-a"), table.slim_nodes(0.0)[0]):
        assert node is not None
        assert (node.cpus, node.memory_bytes, dict(node.custom)) == (8, 1 << 34, {"licence": 3})


def test_a_node_says_how_it_runs_replicas_and_all_it_knows_of_its_gpus() -> None:
    gpu = Gpu(
        uuid="GPU-1",
        health=Gpu.HEALTH_FAULTY,
        health_message="Xid 79",
        temperature_celsius=61,
        power_watts=70.5,
        power_limit_watts=72,
        mig_parent_uuid="GPU-0",
        ecc_corrected_count=1,
        ecc_uncorrected_count=2,
        xid_counts={79: 1},
        processes=[{"process_id": 7, "memory_used_bytes": 3, "replica_id": "add-1"}],
    )
    report = NodeReport(
        gpus=[gpu], runtime=REPLICA_RUNTIME_DOCKER, runtime_message="the launcher is away"
    )
    table = table_with(report)
    for node in (table.node(0.0, "node-a"), table.slim_nodes(0.0)[0]):
        assert node is not None
        assert node.runtime == REPLICA_RUNTIME_DOCKER
        assert node.runtime_message == "the launcher is away"
        assert list(node.gpus) == [gpu]


def test_in_snapshots_replicas_come_without_what_they_have_counted() -> None:
    held = replica(
        gpus=0.5,
        gpu_uuids=["GPU-1"],
        ongoing_count=2,
        attempt_counts={"ok": 1},
        queue_wait=Histogram(bounds_s=[1], counts=[1, 0]),
        service_time=Histogram(bounds_s=[1], counts=[1, 0]),
    )
    table = table_with(NodeReport(replicas=[held], gpus=[Gpu(uuid="GPU-1")]))
    (slim,) = table.slim_nodes(0.0)
    assert slim.replicas == [replica(gpus=0.5, gpu_uuids=["GPU-1"], ongoing_count=2)]
    full = table.node(0.0, "node-a")
    assert full is not None
    assert full.replicas == [held]
    assert table.slim_nodes(1.0)[0] is slim
    assert table.slim_nodes(6.0)[0].state == Node.STATE_OFFLINE


def test_a_refused_report_is_no_silence_but_nothing_new_either() -> None:
    table = table_with(NodeReport(slot_count=2))
    for second in range(1, 60):
        with pytest.raises(ReportError):
            table.report(float(second), 1000.0, "node-a", NodeReport(slot_count=-1))
    (node,) = table.nodes(60.0)
    assert (node.state, node.slot_count) == (Node.STATE_ACTIVE, 2)
    assert node.last_report_time.ToSeconds() == 1000
    assert table.age_s(60.0, "node-a") == 60.0


def test_an_agent_that_reports_nothing_but_absurdities_is_gone_after_a_minute_until_it_stops() -> (
    None
):
    table = table_with(NodeReport())
    with pytest.raises(ReportError):
        table.report(60.0, 1000.0, "node-a", NodeReport(slot_count=-1))
    assert table.nodes(60.1)[0].state == Node.STATE_OFFLINE
    table.report(61.0, 1061.0, "node-a", NodeReport())
    assert table.nodes(61.0)[0].state == Node.STATE_ACTIVE


def test_a_node_that_was_forgotten_must_register_again() -> None:
    with pytest.raises(ReportError, match="register again") as caught:
        NodeTable(5.0).report(0.0, 1000.0, "node-a", NodeReport())
    assert caught.value.reason == Refusal.UNKNOWN_NODE
