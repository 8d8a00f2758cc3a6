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
_FAULTS = {
    GpuMessage.HEALTH_FAULTY: "its node calls it faulty",
    GpuMessage.HEALTH_LOST: "it was there and is not found any more",
}
MAX_REASON_CHARACTERS = 300
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
        used_bytes: memory of each of its GPUs that it uses, as measured; None: not known.
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
    used_bytes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Attendance:
    """How a node is there.

    Attributes:
        silent_s: time from its last report to the snapshot, up to 0.25 s off.
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
        # Both on the clock of metrics, which dates them as if it had never been set.
        silent_s = (sampled_ns - message.last_report_time.ToNanoseconds()) / 1e9
        attendance[name] = Attendance(presence, silent_s, message.applied_revision)
        nodes.append(_node(name, message, CLOSED[presence] or _cannot_start(message)))
        if presence is Presence.OFFLINE:
            continue
        listed = _listed_bytes(message)
        for status in message.replicas:
            seen = _replica(name, status, listed)
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


def _cannot_start(message: NodeMessage) -> str:
    """Why nothing may be placed on a node that reports; empty if something may."""
    said = message.runtime_message
    return f"it cannot start replicas now: {_short(said)}" if said else ""


def _gpu(gpu: GpuMessage) -> Gpu:
    return Gpu(
        gpu.uuid,
        gpu.memory_total_bytes,
        # That of a simulated one is what its replicas declare: it says nothing that is not known.
        0 if gpu.simulated else gpu.memory_used_bytes,
        gpu.product_name,
        _fault(gpu) if gpu.health in _FAULTS else "",
        bool(gpu.mig_parent_uuid),
    )


def _fault(gpu: GpuMessage) -> str:
    return _short(gpu.health_message) or _FAULTS[gpu.health]


def _short(said: str) -> str:
    line = " ".join(said[: 2 * MAX_REASON_CHARACTERS].split())
    return line if len(line) <= MAX_REASON_CHARACTERS else f"{line[: MAX_REASON_CHARACTERS - 1]}…"


def _listed_bytes(message: NodeMessage) -> Mapping[str, Mapping[str, int]]:
    """Memory by replica, of each GPU that says which processes hold it.

    Nothing where no process is any replica's: an agent that does not see the machine's process ids
    cannot tell whose they are, and what its own replicas use would count as others'.
    """
    found: dict[str, dict[str, int]] = {}
    if not any(process.replica_id for gpu in message.gpus for process in gpu.processes):
        return found
    for gpu in message.gpus:
        if gpu.processes:
            used = found[gpu.uuid] = {}
            for process in gpu.processes:
                owner = process.replica_id
                used[owner] = used.get(owner, 0) + process.memory_used_bytes
    return found


def _used_bytes(
    status: ReplicaStatus, listed: Mapping[str, Mapping[str, int]]
) -> tuple[int, ...] | None:
    """Memory that a replica uses of each of its GPUs; None if that is not known."""
    uuids, total = status.gpu_uuids, status.gpu_memory_used_bytes
    parts = [listed[u].get(status.replica_id, 0) if u in listed else 0 for u in uuids]
    known = sum(parts)
    if total > known:
        # A GPU lists no more than 64 processes, and may list none.
        return tuple(part * total // known if known else total // len(parts) for part in parts)
    if known or status.state == ReplicaStatus.STATE_STARTING or all(u in listed for u in uuids):
        return tuple(parts)
    return None


def _replica(
    node: str, status: ReplicaStatus, listed: Mapping[str, Mapping[str, int]]
) -> ReplicaView:
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
        _used_bytes(status, listed) if uuids else None,
    )
