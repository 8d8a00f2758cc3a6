"""Which nodes there are, over hours that take no time."""

import pytest

from forebay.v1.node_pb2 import (
    Gpu,
    Histogram,
    Node,
    NodeRegistration,
    NodeReport,
    ReplicaStatus,
)
from services.metrics import nodes
from services.metrics.nodes import NodeTable, ReportError, TooManyNodesError


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
    assert table.report(0.0, 1000.0, "node-a", NodeReport(slot_count=2))
    assert not table.report(1.0, 1001.0, "node-a", NodeReport(slot_count=2))
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


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        (NodeReport(replicas=[replica(), replica()]), "not unique"),
        (NodeReport(replicas=[replica(deployment="deployments/a.b")]), "deployment"),
        (NodeReport(replicas=[replica(attempt_counts={"ok": -1})]), "negative"),
        (NodeReport(replicas=[replica(queue_wait=Histogram(bounds_s=[1], counts=[1]))]), "bounds"),
        (
            NodeReport(replicas=[replica(queue_wait=Histogram(bounds_s=[2, 1], counts=[1, 1, 1]))]),
            "ascend",
        ),
        (NodeReport(gpus=[Gpu(uuid=str(i)) for i in range(300)]), "gpus"),
    ],
)
def test_refuses_reports_that_are_not_valid(report: NodeReport, complaint: str) -> None:
    with pytest.raises(ReportError, match=complaint):
        table_with(report)


@pytest.mark.parametrize("name", ["", "node-a", "nodes/a.b", "nodes/" + "a" * 10_000])
def test_refuses_names_that_cannot_name_a_node(name: str) -> None:
    with pytest.raises(ReportError, match=r"registration\.node"):
        NodeTable(5.0).register(0.0, NodeRegistration(node=name, instance_id="1"))


def test_outcomes_that_are_not_known_become_no_label() -> None:
    (counted,) = nodes.counts([replica(attempt_counts={"ok": 1, "exploded": 2})])
    assert counted.attempts == {"ok": 1}
