"""Which replicas are assigned, by node and by deployment. Pure.

Kept from one look to the next and told of one node at a time, so that a look at an unchanged mesh
groups nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.autoscaler.capacity import Share

_NONE: Mapping[str, "Assigned"] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Assigned:
    """A replica bound to a node.

    Attributes:
        deployment: id of its deployment.
        generation: of the deployment, that it runs.
        share: what it holds of its node.
        request_timeout_s: the longest one of its attempts may run.
    """

    replica_id: str
    deployment: str
    generation: int
    share: Share
    request_timeout_s: float = 0.0


class Roster:
    """All replicas that are assigned."""

    def __init__(self) -> None:
        self._by_id: dict[str, Assigned] = {}
        self._by_node: dict[str, dict[str, Assigned]] = {}
        self._by_deployment: dict[str, dict[str, Assigned]] = {}

    def put(self, node: str, assigned: Iterable[Assigned]) -> None:
        """Replaces all that is assigned to a node; a node that has nothing is still known.

        The cost grows with what the node had and has, not with the mesh.
        """
        self.drop(node)
        held = {replica.replica_id: replica for replica in assigned}
        self._by_node[node] = held
        for replica_id, replica in held.items():
            self._by_id[replica_id] = replica
            self._by_deployment.setdefault(replica.deployment, {})[replica_id] = replica

    def drop(self, node: str) -> None:
        """Forgets a node and what is assigned to it."""
        for replica_id, replica in self._by_node.pop(node, {}).items():
            self._by_id.pop(replica_id, None)
            siblings = self._by_deployment[replica.deployment]
            siblings.pop(replica_id, None)
            if not siblings:
                del self._by_deployment[replica.deployment]

    @property
    def nodes(self) -> Iterable[str]:
        """Ids of the nodes that have or had replicas."""
        return self._by_node.keys()

    @property
    def by_id(self) -> Mapping[str, Assigned]:
        """All replicas by id."""
        return self._by_id

    @property
    def by_deployment(self) -> Mapping[str, Mapping[str, Assigned]]:
        """Replicas of each deployment that has any, by id."""
        return self._by_deployment

    def on(self, node: str) -> Mapping[str, Assigned]:
        """Replicas of a node by id."""
        return self._by_node.get(node, _NONE)

    def of(self, deployment: str) -> Mapping[str, Assigned]:
        """Replicas of a deployment by id."""
        return self._by_deployment.get(deployment, _NONE)
