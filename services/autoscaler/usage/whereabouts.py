"""Which of the replicas that leave may still run. Pure.

As `presence.Leaving` has it for placement: a replica holds its share until its node has applied
assignments without it and does not report it, or is not there itself.
"""

from collections.abc import Mapping

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import Node, ReplicaStatus
from services.wire.names import NODE_PREFIX


def still_there(snapshot: Snapshot, leaving: Mapping[str, tuple[str, int]]) -> dict[str, bool]:
    """Whether each of them may still run; of those on nodes that metrics does not know, nothing.

    Args:
        snapshot: what metrics sees.
        leaving: node, and revision of the assignments without it, by replica id.
    """
    wanted = {node for node, _ in leaving.values()}
    nodes = {
        name: node
        for node in snapshot.nodes
        if (name := node.name.removeprefix(NODE_PREFIX)) in wanted
    }
    running = {
        replica.replica_id
        for node in nodes.values()
        for replica in node.replicas
        if replica.state != ReplicaStatus.STATE_STOPPED
    }
    return {
        replica_id: _may_run(nodes[node], revision, replica_id in running)
        for replica_id, (node, revision) in leaving.items()
        if node in nodes
    }


def _may_run(node: Node, revision: int, reported: bool) -> bool:
    if node.state == Node.STATE_OFFLINE:
        return False
    return reported or node.applied_revision < revision
