"""What the metrics service says of a small mesh in which everything is known."""

from collections.abc import Mapping
from typing import cast

from google.protobuf.duration_pb2 import Duration

from forebay.v1.deployment_pb2 import Deployment, ReplicaResources
from forebay.v1.node_pb2 import (
    REPLICA_RUNTIME_DOCKER,
    Gpu,
    Histogram,
    NodeRegistration,
    NodeReport,
    ReplicaStatus,
)
from forebay.v1.scaling_pb2 import Policy, RequestLatencyPolicy, ScalingPolicy
from services.metrics import exposition
from services.metrics.declared import Declared, declared_of
from services.metrics.exposition import Exposition
from services.metrics.loads import LoadTable
from services.metrics.nodes import NodeTable
from services.metrics.queues import Queues, QueueSignals
from services.metrics.snapshots import Mesh
from services.metrics.stream_metrics import StreamSize
from services.metrics.task_lanes import TaskSignals
from services.metrics.task_queues import TaskQueues
from services.runtime.clock import Clock

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"

DEPLOYMENT = Deployment(
    request_timeout=Duration(seconds=60),
    resources=ReplicaResources(gpus=1, gpu_memory_bytes=8 << 30),
    scaling=ScalingPolicy(
        policy=Policy(request_latency=RequestLatencyPolicy(desired_latency=Duration(seconds=2)))
    ),
)


class FixedClock:
    """A clock that stands."""

    def monotonic_s(self) -> float:
        """Seconds since some start."""
        return 100.0

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return 1000.0


class OneQueue:
    """What JetStream would have said of one deployment; `known` is whether it has."""

    def __init__(self, known: bool = True) -> None:
        self._known = known

    def deployments(self) -> set[str]:
        """The one."""
        return {"add"}

    def signals(self, _: str) -> QueueSignals | None:
        """Three wait and one runs."""
        return QueueSignals(3, 1, 0, 4.0, 2.5, 0.5) if self._known else None

    def poison_count(self, _: str) -> int:
        """Those that no agent was left to give up."""
        return 2

    def worked(self, _: str) -> None:
        """Not asked for."""


class TwoTasks:
    """What JetStream would have said of one deployment's tasks."""

    def signals(self, _: str) -> TaskSignals | None:
        """One waits and one runs."""
        return TaskSignals(1, 1, 0.5, 0.5)

    def dead_count(self, _: str) -> int:
        """Dead letters."""
        return 4


def gpu(**fields: object) -> Gpu:
    """A GPU of which everything is known."""
    known: dict[str, object] = {
        "uuid": "GPU-1",
        "product_name": "NVIDIA L4",
        "memory_total_bytes": 24 << 30,
        "memory_used_bytes": 6 << 30,
        "utilization_ratio": 0.5,
        "health": Gpu.HEALTH_OK,
        "temperature_celsius": 61.0,
        "power_watts": 55.5,
        "power_limit_watts": 72.0,
        "ecc_corrected_count": 1,
        "ecc_uncorrected_count": 0,
        "xid_counts": {31: 2},
    }
    return Gpu(**{**known, **fields})  # type: ignore[arg-type]


def report(traced: bool = False, **fields: object) -> NodeReport:
    """A report with one replica of `add`, whose third duration may have been traced."""
    waits = Histogram(bounds_s=[0.1, 1], counts=[0, 0, 0])
    if traced:
        waits.exemplars.add(bucket=1, value_s=0.7, trace_id=TRACE_ID)
    replica = ReplicaStatus(
        replica_id="add-1",
        deployment="deployments/add",
        state=ReplicaStatus.STATE_READY,
        queue_wait=waits,
        service_time=waits,
        attempt_counts={"ok": 0},
        startup_time=Duration(seconds=3),
        gpu_uuids=["GPU-1"],
        gpu_memory_used_bytes=6 << 30,
    )
    known: dict[str, object] = {
        "gpus": [gpu()],
        "replicas": [replica],
        "cpus": 8,
        "memory_bytes": 1000,
        "custom": {"licence": 2},
        "runtime": REPLICA_RUNTIME_DOCKER,
    }
    return NodeReport(**{**known, **fields})  # type: ignore[arg-type]


def exposed(
    accept: str = "", queue: OneQueue | None = None, traced: bool = False, **fields: object
) -> str:
    """What a scrape gets.

    Args:
        accept: the request's header.
        queue: what is known of the queue.
        traced: whether one request was traced.
        fields: of the node's reports.
    """
    told = exposition_of(queue, traced, FixedClock(), **fields)
    return exposition.encode(told.look(), accept)[0].decode()


def exposition_of(
    queue: OneQueue | None = None,
    traced: bool = False,
    clock: Clock | None = None,
    **fields: object,
) -> Exposition:
    """What looks at the small mesh."""
    clock = clock or FixedClock()
    mesh = _mesh(queue or OneQueue(), traced, clock, fields)
    declared: Mapping[str, Declared] = {"add": declared_of(DEPLOYMENT)}
    streams = [StreamSize("FOREBAY_TASKS", 10, 1000, 1 << 30, 3, 2)]
    return Exposition(mesh, clock, lambda: True, lambda: declared, lambda: streams)


def _mesh(queue: OneQueue, traced: bool, clock: Clock, fields: dict[str, object]) -> Mesh:
    queues, tasks = cast(Queues, queue), cast(TaskQueues, TwoTasks())
    mesh = Mesh(NodeTable(5.0), LoadTable(30.0), queues, tasks, clock)
    node = mesh.register(
        NodeRegistration(node="nodes/node-a", instance_id="1", agent_version="1.2.3")
    )
    mesh.report(node, NodeReport.FromString(report(**fields).SerializeToString()))
    later = report(traced, **fields)
    later.replicas[0].attempt_counts["ok"] = 3
    later.replicas[0].attempt_counts["aborted"] = 1
    later.replicas[0].queue_wait.counts[:] = [1, 1, 1]
    later.replicas[0].service_time.counts[:] = [0, 1, 0]
    mesh.report(node, later)
    return mesh
