"""What is seen of the mesh at one instant, as decisions use it. Pure.

Made from metrics' snapshot once for each look, or by a simulator from nothing. Replicas on nodes
that do not report are not seen: their last words are no state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Gpu as GpuMessage
from forebay.v1.node_pb2 import Node as NodeMessage
from forebay.v1.node_pb2 import ReplicaStatus
from services.autoscaler.capacity import Gpu, Node
from services.wire.names import DEPLOYMENT_PREFIX, NODE_PREFIX


class State(Enum):
    """How a replica is, as far as it is known."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Presence(Enum):
    """Whether a node can serve."""

    ACTIVE = "active"
    DRAINING = "draining"
    OFFLINE = "offline"


_STATES = {
    ReplicaStatus.STATE_STARTING: State.STARTING,
    ReplicaStatus.STATE_READY: State.READY,
    ReplicaStatus.STATE_DRAINING: State.DRAINING,
    ReplicaStatus.STATE_STOPPED: State.STOPPED,
    ReplicaStatus.STATE_FAILED: State.FAILED,
}
_PRESENCES = {
    NodeMessage.STATE_ACTIVE: Presence.ACTIVE,
    NodeMessage.STATE_DRAINING: Presence.DRAINING,
    NodeMessage.STATE_OFFLINE: Presence.OFFLINE,
}
# Of a node in a state that this version does not know, nothing can be said against it.
CLOSED = {
    Presence.ACTIVE: "",
    Presence.DRAINING: "it is draining",
    Presence.OFFLINE: "it does not report",
}


@dataclass(slots=True)
class ReplicaView:
    """A replica as its agent reports it.

    To be left as it is, though it is not frozen: that would cost 1 µs each, of which a mesh has
    20,000 at every look.

    Attributes:
        node: id of its node.
        deployment: id of its deployment.
        gpu_uuids: GPUs that it holds.
        gpus: how much of each: its declared `gpus`.
        ongoing_count: requests inside Triton now.
        start_count: times its Triton was started.
        startup_s: from the last start to READY; None if it was never ready.
        message: what it is doing or why it failed, for a person.
    """

    node: str
    deployment: str
    generation: int
    state: State
    ongoing_count: int = 0
    start_count: int = 0
    startup_s: float | None = None
    gpu_uuids: tuple[str, ...] = ()
    gpus: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Attendance:
    """How a node is there.

    Attributes:
        silent_s: time from its last report to the snapshot.
        applied_revision: revision of the assignments that it last applied.
    """

    presence: Presence
    silent_s: float = 0.0
    applied_revision: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """What is seen.

    Attributes:
        nodes: all that are known, with what they have.
        attendance: of the same nodes, by id.
        replicas: on nodes that report, by id.
        draining_counts: how many of them are DRAINING, by deployment.
    """

    nodes: tuple[Node, ...] = ()
    attendance: Mapping[str, Attendance] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaView] = field(default_factory=dict)
    draining_counts: Mapping[str, int] = field(default_factory=dict)


def view_of(snapshot: Snapshot) -> View:
    """What a snapshot shows."""
    nodes: list[Node] = []
    attendance: dict[str, Attendance] = {}
    replicas: dict[str, ReplicaView] = {}
    draining: dict[str, int] = {}
    sampled_ns = snapshot.sample_time.ToNanoseconds()
    for message in snapshot.nodes:
        name = message.name.removeprefix(NODE_PREFIX)
        presence = _PRESENCES.get(message.state, Presence.ACTIVE)
        silent_s = (sampled_ns - message.last_report_time.ToNanoseconds()) / 1e9
        attendance[name] = Attendance(presence, silent_s, message.applied_revision)
        nodes.append(_node(name, message, CLOSED[presence]))
        if presence is Presence.OFFLINE:
            continue
        for status in message.replicas:
            seen = _replica(name, status)
            replicas[status.replica_id] = seen
            if seen.state is State.DRAINING:
                draining[seen.deployment] = draining.get(seen.deployment, 0) + 1
    return View(tuple(nodes), attendance, replicas, draining)


def _node(name: str, message: NodeMessage, closed: str) -> Node:
    return Node(
        name,
        message.slot_count,
        tuple(_gpu(gpu) for gpu in message.gpus),
        closed,
        message.cpus,
        message.memory_bytes,
        tuple(sorted(message.custom.items())) if message.custom else (),
        _volumes(message) if message.volumes else (),
    )


def _volumes(message: NodeMessage) -> tuple[tuple[str, bool], ...]:
    read_only = set(message.read_only_volumes)
    return tuple((name, name in read_only) for name in sorted(message.volumes))


def _gpu(gpu: GpuMessage) -> Gpu:
    return Gpu(gpu.uuid, gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.product_name)


def _replica(node: str, status: ReplicaStatus) -> ReplicaView:
    started = status.startup_time if status.HasField("startup_time") else None
    gpus = status.gpus
    uuids = status.gpu_uuids
    return ReplicaView(
        node,
        status.deployment.removeprefix(DEPLOYMENT_PREFIX),
        status.generation,
        _STATES.get(status.state, State.UNKNOWN),
        status.ongoing_count,
        status.start_count,
        started.seconds + started.nanos / 1e9 if started is not None else None,
        tuple(uuids) if gpus or uuids else (),
        gpus,
        status.message,
    )
