"""What is documented is what is exposed."""

import re
from pathlib import Path
from typing import cast

from google.protobuf.duration_pb2 import Duration

from forebay.v1.node_pb2 import (
    Gpu,
    Histogram,
    NodeRegistration,
    NodeReport,
    ReplicaStatus,
)
from services.metrics import exposition
from services.metrics.loads import LoadTable
from services.metrics.nodes import NodeTable
from services.metrics.queues import Queues, QueueSignals
from services.metrics.snapshots import Mesh
from services.metrics.task_lanes import TaskSignals
from services.metrics.task_queues import TaskQueues

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


def document() -> str:
    """What is documented of the metrics service; routers serve their own."""
    return DOCUMENT.read_text().partition("## The routers")[0]


class FixedClock:
    """A clock that stands."""

    def monotonic_s(self) -> float:
        return 100.0

    def wall_s(self) -> float:
        return 1000.0


class OneQueue:
    """What JetStream would have said of one deployment; `known` is whether it has."""

    def __init__(self, known: bool = True) -> None:
        self._known = known

    def deployments(self) -> set[str]:
        return {"add"}

    def signals(self, _: str) -> QueueSignals | None:
        return QueueSignals(3, 1, 0, 4.0, 2.5, 0.5) if self._known else None

    def poison_count(self, _: str) -> int:
        return 2

    def worked(self, _: str) -> None:
        """Not asked for."""


class TwoTasks:
    """What JetStream would have said of one deployment's tasks."""

    def signals(self, _: str) -> TaskSignals | None:
        return TaskSignals(1, 1, 0.5, 0.5)

    def dead_count(self, _: str) -> int:
        return 4


def text(queue: OneQueue) -> str:
    queues, tasks = cast(Queues, queue), cast(TaskQueues, TwoTasks())
    mesh = Mesh(NodeTable(5.0), LoadTable(30.0), queues, tasks, FixedClock())
    node = mesh.register(NodeRegistration(node="nodes/node-a", instance_id="1"))
    waits = Histogram(bounds_s=[0.1, 1], counts=[0, 0, 0])
    replica = ReplicaStatus(
        replica_id="add-1",
        deployment="deployments/add",
        state=ReplicaStatus.STATE_READY,
        queue_wait=waits,
        service_time=waits,
        attempt_counts={"ok": 0},
        startup_time=Duration(seconds=3),
    )
    report = NodeReport(
        gpus=[Gpu(uuid="GPU-1", memory_total_bytes=10)],
        replicas=[replica],
        cpus=8,
        memory_bytes=1000,
        custom={"licence": 2},
    )
    mesh.report(node, NodeReport.FromString(report.SerializeToString()))
    report.replicas[0].attempt_counts["ok"] = 3
    report.replicas[0].attempt_counts["aborted"] = 1
    report.replicas[0].queue_wait.counts[:] = [1, 1, 1]
    mesh.report(node, report)
    return exposition.text(exposition.registry(mesh, lambda: True)).decode()


def test_documented_metrics_are_those_exposed_with_their_types() -> None:
    documented = {name: kind for name, kind, _ in _ROW.findall(document())}
    exposed = dict(_TYPE.findall(text(OneQueue())))
    assert documented == exposed


def test_documented_labels_are_those_exposed() -> None:
    exposed = text(OneQueue())
    for name, _, labels in _ROW.findall(document()):
        documented = set(re.findall(r"`([a-z]+)`", re.sub(r"\(.*?\)", "", labels)))
        series = re.search(rf"^{name}(?:_count)?(?:{{(.*)}})? ", exposed, re.MULTILINE)
        assert series, f"{name} has no series"
        assert set(re.findall(r"(\w+)=", series.group(1) or "")) == documented, name


def test_what_is_not_known_is_absent_rather_than_zero() -> None:
    assert 'forebay_queued_requests{deployment="add"} 3.0' in text(OneQueue())
    assert "forebay_queued_requests{" not in text(OneQueue(known=False))


def test_requests_and_tasks_are_told_apart() -> None:
    exposed = text(OneQueue())
    for name, count in (
        ("forebay_queued_requests", 3.0),
        ("forebay_queued_tasks", 1.0),
        ("forebay_ongoing_requests", 1.0),
        ("forebay_ongoing_tasks", 1.0),
        ("forebay_dead_tasks_total", 4.0),
        ("forebay_arrivals_per_second", 4.5),
    ):
        assert f'{name}{{deployment="add"}} {count}\n' in exposed


def test_histograms_are_cumulative() -> None:
    lines = [line for line in text(OneQueue()).splitlines() if "queue_wait_seconds_bucket" in line]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["1.0", "2.0", "3.0"]
    assert 'le="+Inf"' in lines[-1]


def test_poison_is_what_agents_gave_up_and_what_no_agent_was_left_to_give_up() -> None:
    assert 'forebay_poison_requests_total{deployment="add"} 3.0' in text(OneQueue())
