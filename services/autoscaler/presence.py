"""What must be remembered between two looks at the mesh. Pure: time is an argument."""

from collections.abc import Iterable, Mapping

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Node
from services.autoscaler.placement import Demand, Share
from services.wire import names


class Absences:
    """Since when nodes have been absent."""

    def __init__(self, grace_s: float) -> None:
        """Nobody is absent yet.

        Args:
            grace_s: how long a node may be absent before its replicas move.
        """
        self._grace_s = grace_s
        self._missing_since_s: dict[str, float] = {}

    def gone(self, now_s: float, snapshot: Snapshot, nodes: Iterable[str]) -> frozenset[str]:
        """Those of `nodes` whose replicas must move: absent for too long, or leaving.

        A node that metrics lists as OFFLINE has been absent since its last report. One that
        metrics does not know, as after a restart of metrics, counts as absent from when that is
        first seen here, which gives it the full grace period to report again.
        """
        listed = {names.node_id(node.name): node for node in snapshot.nodes}
        missing = {node for node in nodes if node not in listed}
        self._missing_since_s = {node: self._missing_since_s.get(node, now_s) for node in missing}
        late = {n for n, since_s in self._missing_since_s.items() if self._late(now_s - since_s)}
        for name in set(nodes) - missing:
            node = listed[name]
            silent_s = (
                snapshot.sample_time.ToNanoseconds() - node.last_report_time.ToNanoseconds()
            ) / 1e9
            offline = node.state == Node.STATE_OFFLINE and self._late(silent_s)
            if offline or node.state == Node.STATE_DRAINING:
                late.add(name)
        return frozenset(late)

    def _late(self, silent_s: float) -> bool:
        return silent_s > self._grace_s


class Leaving:
    """Shares of replicas that were unassigned and may still run.

    A report that was sampled before the node heard of the change says nothing of it yet; without
    this memory, what is being removed would look free for a moment.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Share, int]] = {}

    def add_assignment(self, node: str, assignment: Assignment, revision: int) -> None:
        """Takes note of a replica that is absent from its node's assignments since `revision`."""
        resources = assignment.resources
        share = Share(
            node,
            tuple(assignment.gpu_uuids),
            Demand(resources.gpus, resources.gpu_memory_bytes),
        )
        deployment = names.deployment_id(assignment.deployment)
        self._held[assignment.replica_id] = (deployment, share, revision)

    def current(self, snapshot: Snapshot) -> Mapping[str, tuple[str, Share]]:
        """Deployment and share of all that may still run, by replica id.

        A replica has left when its node has applied the change and does not report it, or is not
        there itself.
        """
        applied = {
            names.node_id(node.name): node.applied_revision
            for node in snapshot.nodes
            if node.state != Node.STATE_OFFLINE
        }
        self._held = {
            replica_id: held
            for replica_id, held in self._held.items()
            if held[1].node in applied and applied[held[1].node] < held[2]
        }
        return {replica_id: (held[0], held[1]) for replica_id, held in self._held.items()}
