"""Totals over agents that come, go and count from zero again."""

from services.metrics.loads import LoadTable, ReplicaCounts
from services.metrics.window import Histogram


def counts(replica_id: str, ok: int, waits: tuple[int, int] = (0, 0)) -> ReplicaCounts:
    return ReplicaCounts(replica_id, "add", {"ok": ok}, Histogram((1.0,), waits, 0.0), None)


def test_the_first_report_of_an_older_agent_belongs_to_no_window() -> None:
    table = LoadTable(30.0)
    table.apply(0.0, "node-a", [counts("add-1", 1000, (500, 500))], first_report=True)
    table.apply(1.0, "node-a", [counts("add-1", 1003, (502, 500))], first_report=False)
    totals = table.totals("add")
    assert totals is not None
    assert totals.attempts == {"ok": 3}
    assert totals.queue_wait.total is not None
    assert totals.queue_wait.total.histogram() == Histogram((1.0,), (2, 0), 0.0)


def test_a_replica_that_is_new_counts_from_zero() -> None:
    table = LoadTable(30.0)
    table.apply(0.0, "node-a", [], first_report=True)
    table.apply(1.0, "node-a", [counts("add-1", 5)], first_report=False)
    totals = table.totals("add")
    assert totals is not None
    assert totals.attempts == {"ok": 5}


def test_totals_never_go_down_when_an_agent_counts_anew() -> None:
    table = LoadTable(30.0)
    table.apply(0.0, "node-a", [], first_report=True)
    table.apply(1.0, "node-a", [counts("add-1", 5)], first_report=False)
    table.apply(2.0, "node-a", [counts("add-1", 2)], first_report=False)
    table.begin_anew("node-a")
    table.apply(3.0, "node-a", [counts("add-1", 4)], first_report=False)
    totals = table.totals("add")
    assert totals is not None
    assert totals.attempts == {"ok": 5 + 2 + 4}


def test_totals_outlive_replicas_but_not_their_deployment() -> None:
    table = LoadTable(30.0)
    table.apply(0.0, "node-a", [], first_report=True)
    table.apply(1.0, "node-a", [counts("add-1", 5)], first_report=False)
    table.apply(2.0, "node-a", [], first_report=False)
    table.forget({"node-a"}, {"add"})
    totals = table.totals("add")
    assert totals is not None
    assert totals.attempts == {"ok": 5}
    table.forget({"node-a"}, set())
    assert table.totals("add") is None


def test_says_which_deployments_have_worked() -> None:
    table = LoadTable(30.0)
    assert table.apply(0.0, "node-a", [counts("add-1", 5)], first_report=True) == set()
    assert table.apply(1.0, "node-a", [counts("add-1", 5)], first_report=False) == set()
    assert table.apply(2.0, "node-a", [counts("add-1", 6)], first_report=False) == {"add"}
