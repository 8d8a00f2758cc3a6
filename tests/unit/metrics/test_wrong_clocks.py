"""A wall clock that is wrong, or set, by ten minutes: nobody is called silent for it."""

from typing import cast

import pytest

from forebay.v1.node_pb2 import Node, NodeRegistration, NodeReport, ReplicaStatus
from services.autoscaler.presence import Absences
from services.autoscaler.view import Presence, view_of
from services.metrics.loads import LoadTable
from services.metrics.nodes import NodeTable
from services.metrics.queues import Queues
from services.metrics.snapshots import Mesh
from services.metrics.task_queues import TaskQueues

WRONG_S = 600.0
METRICS_GRACE_S, NODE_GRACE_S = 5.0, 10.0


class Clock:
    """A clock whose two hands are set apart from each other."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.wrong_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self.now_s + self.wrong_s


class Nothing:
    """No queues."""

    def deployments(self) -> set[str]:
        return set()

    def signals(self, _: str) -> None:
        return None

    def poison_count(self, _: str) -> int:
        return 0

    def dead_count(self, _: str) -> int:
        return 0

    def worked(self, _: str) -> None:
        """Nobody asks."""


class Metrics:
    """Metrics with nodes that report, as the autoscaler sees it."""

    def __init__(self) -> None:
        self.clock = Clock()
        nodes = NodeTable(METRICS_GRACE_S)
        queues, tasks = cast(Queues, Nothing()), cast(TaskQueues, Nothing())
        self.mesh = Mesh(nodes, LoadTable(60.0), queues, tasks, self.clock)
        self.absences = Absences(NODE_GRACE_S)

    def report(self, node: str, agent_wrong_s: float = 0.0) -> None:
        self.mesh.register(NodeRegistration(node=f"nodes/{node}", instance_id="1"))
        replica = ReplicaStatus(replica_id=f"{node}-1", deployment="deployments/add")
        report = NodeReport(slot_count=1, replicas=[replica])
        report.sample_time.FromNanoseconds(int((self.clock.wall_s() + agent_wrong_s) * 1e9))
        self.mesh.report(node, report)

    def silent_s(self, node: str) -> float:
        return view_of(self.mesh.snapshot()).attendance[node].silent_s

    def presence(self, node: str) -> Presence:
        return view_of(self.mesh.snapshot()).attendance[node].presence

    def gone(self) -> frozenset[str]:
        view = view_of(self.mesh.snapshot())
        return self.absences.gone(self.clock.now_s, view, view.attendance.keys())


@pytest.mark.parametrize("wrong_s", [WRONG_S, -WRONG_S])
def test_what_an_agent_takes_for_the_time_changes_nothing(wrong_s: float) -> None:
    metrics = Metrics()
    metrics.report("a", wrong_s)
    metrics.clock.now_s += 2
    assert metrics.silent_s("a") == pytest.approx(2.0)
    assert (metrics.presence("a"), metrics.gone()) == (Presence.ACTIVE, frozenset())


@pytest.mark.parametrize("wrong_s", [WRONG_S, -WRONG_S])
def test_a_clock_that_is_set_makes_nobody_look_silent(wrong_s: float) -> None:
    metrics = Metrics()
    metrics.report("a")
    metrics.report("b")
    metrics.mesh.snapshot()
    metrics.clock.now_s += 2
    metrics.clock.wrong_s = wrong_s
    # b reports after it, a does not.
    metrics.report("b")
    assert metrics.silent_s("a") == pytest.approx(2.0)
    assert metrics.silent_s("b") == pytest.approx(0.0)


@pytest.mark.parametrize("wrong_s", [WRONG_S, -WRONG_S])
def test_a_node_that_went_away_has_its_whole_grace_period_whatever_is_done_to_the_clock(
    wrong_s: float,
) -> None:
    metrics = Metrics()
    metrics.report("a")
    metrics.mesh.snapshot()
    metrics.clock.now_s += NODE_GRACE_S - 1
    metrics.clock.wrong_s = wrong_s
    assert metrics.presence("a") is Presence.OFFLINE
    assert metrics.gone() == frozenset()
    metrics.clock.now_s += 2
    assert metrics.gone() == {"a"}


def test_instants_follow_the_clock_that_was_set_right() -> None:
    metrics = Metrics()
    metrics.clock.wrong_s = WRONG_S
    metrics.report("a")
    metrics.clock.wrong_s = 0.0
    metrics.clock.now_s += 1
    (node,) = metrics.mesh.snapshot().nodes
    told_s = node.last_report_time.ToNanoseconds() / 1e9
    assert told_s == pytest.approx(metrics.clock.wall_s() - 1)


def test_a_clock_that_wanders_a_little_makes_no_work() -> None:
    metrics = Metrics()
    metrics.report("a")
    (before,) = metrics.mesh.nodes.slim_nodes(metrics.clock.now_s)
    metrics.clock.wrong_s = 0.2
    metrics.mesh.snapshot()
    (after,) = metrics.mesh.nodes.slim_nodes(metrics.clock.now_s)
    assert after is before
    assert after.state == Node.STATE_ACTIVE
