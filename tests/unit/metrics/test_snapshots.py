"""One view of load, joined from reports and queues, over time that is an argument."""

from dataclasses import replace
from typing import cast

import pytest
from google.protobuf.duration_pb2 import Duration

from forebay.v1.metrics_pb2 import DeploymentLoad
from forebay.v1.node_pb2 import Histogram, Node, NodeRegistration, NodeReport, ReplicaStatus
from services.metrics.loads import LoadTable
from services.metrics.nodes import NodeTable
from services.metrics.queues import Queues, QueueSignals
from services.metrics.snapshots import Mesh
from services.metrics.task_lanes import TaskSignals
from services.metrics.task_queues import TaskQueues

KNOWN = QueueSignals(3, 2, 1, 4.0, 2.5, 0.5)
NO_TASKS = TaskSignals(0, 0, 0.0, 0.25)
NOTHING_KNOWN = DeploymentLoad(deployment="deployments/add", poison_count=2, dead_task_count=7)
BOUNDS_S = [0.1, 1.0]


class Clock:
    """A clock that is set."""

    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1000.0 + self.now_s


class OneQueue:
    """What JetStream would have said."""

    def __init__(self) -> None:
        self.said: QueueSignals | None = KNOWN
        self.declared = {"add"}
        self.moved: list[str] = []

    def deployments(self) -> set[str]:
        return self.declared

    def signals(self, _: str) -> QueueSignals | None:
        return self.said

    def poison_count(self, _: str) -> int:
        return 2

    def worked(self, deployment: str) -> None:
        self.moved.append(deployment)


class Tasks:
    """What JetStream would have said of tasks."""

    def __init__(self) -> None:
        self.said: TaskSignals | None = NO_TASKS

    def signals(self, _: str) -> TaskSignals | None:
        return self.said

    def dead_count(self, _: str) -> int:
        return 7


class Setting:
    """A mesh with one queue and a clock to set."""

    def __init__(self) -> None:
        self.clock, self.queue, self.tasks = Clock(), OneQueue(), Tasks()
        queues, tasks = cast(Queues, self.queue), cast(TaskQueues, self.tasks)
        self.mesh = Mesh(NodeTable(5.0), LoadTable(30.0), queues, tasks, self.clock)

    def report(self, node: str, *replicas: ReplicaStatus, instance_id: str = "1") -> None:
        name = f"nodes/{node}"
        self.mesh.register(NodeRegistration(node=name, instance_id=instance_id))
        self.mesh.report(node, NodeReport(replicas=replicas))

    def load(self) -> DeploymentLoad:
        (load,) = self.mesh.snapshot().deployments
        return load


def replica(number: int, state: ReplicaStatus.State, **fields: object) -> ReplicaStatus:
    return ReplicaStatus(
        replica_id=f"add-{number}", deployment="deployments/add", state=state, **fields
    )


def served(ok: int, aborted: int = 0) -> ReplicaStatus:
    """A replica that has served in 0.5 s each."""
    return replica(
        1,
        ReplicaStatus.STATE_READY,
        attempt_counts={"ok": ok, "aborted": aborted},
        service_time=Histogram(bounds_s=BOUNDS_S, counts=[0, ok, 0], sum_s=0.5 * ok),
    )


def test_what_is_no_longer_known_is_unset_again() -> None:
    setting = Setting()
    load = setting.load()
    assert (load.queued_count, load.ongoing_count, load.redelivered_count) == (3, 2, 1)
    assert load.oldest_queued_age.ToMilliseconds() == 2500
    assert load.age.ToMilliseconds() == 500
    setting.queue.said = setting.tasks.said = None
    assert setting.load() == NOTHING_KNOWN
    setting.tasks.said = NO_TASKS
    setting.queue.said = replace(KNOWN, arrivals_per_second=None, oldest_queued_age_s=None)
    load = setting.load()
    assert load.queued_count == 3
    assert not load.HasField("arrivals_per_second")
    assert not load.HasField("oldest_queued_age")


def test_tasks_count_as_requests_do_and_their_next_attempts_are_not_held_against_them() -> None:
    setting = Setting()
    setting.tasks.said = TaskSignals(queued=5, ongoing=4, arrivals_per_second=0.5, age_s=1.5)
    load = setting.load()
    assert (load.queued_count, load.ongoing_count, load.redelivered_count) == (8, 6, 1)
    assert (load.queued_task_count, load.ongoing_task_count, load.dead_task_count) == (5, 4, 7)
    assert load.arrivals_per_second == 4.5
    assert load.age.ToMilliseconds() == 1500


def test_without_either_queue_the_sum_is_not_known() -> None:
    setting = Setting()
    both = ("queued_count", "ongoing_count", "arrivals_per_second")
    setting.tasks.said = None
    load = setting.load()
    assert not any(load.HasField(field) for field in (*both, "queued_task_count"))
    assert load.redelivered_count == 1
    assert load.age.ToMilliseconds() == 500
    setting.tasks.said, setting.queue.said = TaskSignals(5, 4, 0.5, 1.5), None
    load = setting.load()
    assert not any(load.HasField(field) for field in (*both, "redelivered_count"))
    assert (load.queued_task_count, load.ongoing_task_count) == (5, 4)
    assert load.age.ToMilliseconds() == 1500


def test_replicas_are_counted_by_state_on_the_nodes_that_are_there() -> None:
    setting = Setting()
    ready, starting = ReplicaStatus.STATE_READY, ReplicaStatus.STATE_STARTING
    setting.report("node-a", replica(1, ready, startup_time=Duration(seconds=2)))
    setting.clock.now_s += 4.0
    setting.report(
        "node-b",
        replica(2, ready, startup_time=Duration(seconds=4)),
        replica(3, starting),
        replica(4, ReplicaStatus.STATE_DRAINING),
        replica(5, ReplicaStatus.STATE_FAILED),
        replica(6, 99),
    )
    load = setting.load()
    assert (load.ready_replica_count, load.starting_replica_count) == (2, 1)
    assert (load.draining_replica_count, load.failed_replica_count) == (1, 1)
    assert load.startup_time.ToMilliseconds() == 3000
    # The oldest input: what node-a said.
    assert load.age.ToMilliseconds() == 4000
    setting.clock.now_s += 4.0
    load = setting.load()
    assert load.ready_replica_count == 1
    assert load.startup_time.ToMilliseconds() == 4000
    setting.clock.now_s += 4.0
    load = setting.load()
    assert load.ready_replica_count == 0
    assert not load.HasField("startup_time")
    assert [node.state for node in setting.mesh.snapshot().nodes] == [Node.STATE_OFFLINE] * 2


def test_latencies_are_those_of_the_window_and_gone_with_it() -> None:
    setting = Setting()
    setting.report("node-a", served(0))
    assert not setting.load().HasField("service_time")
    setting.clock.now_s += 3.0
    setting.report("node-a", served(10))
    load = setting.load()
    assert load.service_time.count == 10
    assert load.service_time.mean.ToMilliseconds() == 500
    assert load.service_time.p50.ToMilliseconds() == pytest.approx(550)
    assert setting.queue.moved == ["add"]
    setting.clock.now_s += 30.0
    setting.report("node-a", served(10))
    assert not setting.load().HasField("service_time")


def test_what_an_agent_counted_last_is_not_lost_with_it() -> None:
    setting = Setting()
    setting.mesh.nodes._count_interval_s = 3600.0
    setting.report("node-a", served(0))
    setting.report("node-a", served(7))
    # The agent is started anew, and counts from zero.
    setting.report("node-a", served(2), instance_id="2")
    totals = setting.mesh.totals("add")
    assert totals is not None
    assert totals.attempts["ok"] == 9


def test_poison_is_what_agents_gave_up_and_what_no_agent_was_left_to_give_up() -> None:
    setting = Setting()
    setting.report("node-a", served(0))
    setting.report("node-a", served(1, aborted=3))
    assert setting.load().poison_count == 2 + 3


def test_a_deployment_that_is_gone_leaves_nothing_behind() -> None:
    setting = Setting()
    setting.report("node-a", served(0))
    setting.report("node-a", served(5))
    assert setting.load().service_time.count == 5
    setting.report("node-a")
    setting.queue.declared = set()
    setting.mesh.forget()
    assert not setting.mesh.snapshot().deployments
    setting.queue.declared = {"add"}
    setting.queue.said = setting.tasks.said = None
    assert setting.load() == NOTHING_KNOWN
