"""What must be remembered between two looks at the mesh. Pure: time is an argument."""

from collections.abc import Iterable, Mapping

from services.autoscaler.capacity import Share
from services.autoscaler.view import Presence, State, View


class Absences:
    """Since when nodes have been absent."""

    def __init__(self, grace_s: float) -> None:
        """Nobody is absent yet.

        Args:
            grace_s: how long a node may be absent before its replicas move.
        """
        self._grace_s = grace_s
        self._missing_since_s: dict[str, float] = {}

    def gone(self, now_s: float, view: View, nodes: Iterable[str]) -> frozenset[str]:
        """Those of `nodes` whose replicas must move: absent for too long, or leaving.

        A node that metrics lists as OFFLINE has been absent since its last report. One that
        metrics does not know, as after a restart of metrics, counts as absent from when that is
        first seen here, which gives it the full grace period to report again.
        """
        missing_since_s: dict[str, float] = {}
        late: set[str] = set()
        for node in nodes:
            there = view.attendance.get(node)
            if there is None:
                since_s = self._missing_since_s.get(node, now_s)
                missing_since_s[node] = since_s
                if now_s - since_s > self._grace_s:
                    late.add(node)
            elif there.presence is Presence.DRAINING or (
                there.presence is Presence.OFFLINE and there.silent_s > self._grace_s
            ):
                late.add(node)
        self._missing_since_s = missing_since_s
        return frozenset(late)


class Leaving:
    """Shares of replicas that were unassigned and may still run.

    A report that was sampled before the node heard of the change says nothing of it yet; without
    this memory, what is being removed would look free for a moment. And a report does not say all
    that a replica holds: its CPUs, memory and other resources are known from its assignment alone.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Share, int]] = {}

    def add(self, replica_id: str, deployment: str, share: Share, revision: int) -> None:
        """Takes note of a replica that is absent from its node's assignments since `revision`."""
        self._held[replica_id] = (deployment, share, revision)

    def current(self, view: View) -> Mapping[str, tuple[str, Share]]:
        """Deployment and share of all that may still run, by replica id.

        A replica has left when its node has applied the change and does not report it, or is not
        there itself.
        """
        self._held = {
            replica_id: held
            for replica_id, held in self._held.items()
            if _may_run(replica_id, held[1].node, held[2], view)
        }
        return {replica_id: (held[0], held[1]) for replica_id, held in self._held.items()}


def _may_run(replica_id: str, node: str, revision: int, view: View) -> bool:
    there = view.attendance.get(node)
    if there is None or there.presence is Presence.OFFLINE:
        return False
    if there.applied_revision < revision:
        return True
    seen = view.replicas.get(replica_id)
    return seen is not None and seen.state is not State.STOPPED
