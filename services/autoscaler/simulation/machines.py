"""The machine level of a simulated mesh: node demand, a node provider, idle nodes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.autoscaler.capacity import Capacity, Demand, Node, Share
from services.autoscaler.consolidation import Consolidation
from services.autoscaler.demand import IdleNodes, node_demand
from services.autoscaler.placement import pick
from services.autoscaler.plan import Plan
from services.autoscaler.rollout import Spec
from services.autoscaler.roster import Roster
from services.autoscaler.simulation.mesh import Mesh
from services.autoscaler.view import View


@dataclass(frozen=True, slots=True)
class Provider:
    """Adds and takes away nodes, as the local one does.

    Attributes:
        template: what a new node has; its name is the prefix of their names.
        delay_s: from demand to the first report of a node.
        most: nodes that there may be because of it.
    """

    template: Node
    delay_s: float
    most: int


class Machines:
    """Which machines are missing and which could go."""

    def __init__(
        self,
        provider: Provider | None,
        idle_delay_s: float = 300.0,
        keep_nodes: int = 0,
        consolidation_delay_s: float | None = None,
    ) -> None:
        """No node was asked for yet."""
        self._provider = provider
        self._idle = IdleNodes(idle_delay_s, keep_nodes)
        self._consolidation = Consolidation(
            consolidation_delay_s or 0.0, consolidation_delay_s is not None
        )
        self._coming: set[str] = set()
        self._added: set[str] = set()
        self._number = 0
        self._said = ""

    @property
    def evacuating(self) -> frozenset[str]:
        """The node that is being emptied."""
        return self._consolidation.evacuating

    def keeps_looking(self, mesh: Mesh) -> bool:
        """Whether time alone may change something."""
        return bool(mesh.replicas or self._added or self._coming)

    def look(
        self,
        now_s: float,
        mesh: Mesh,
        made: Plan,
        specs: Mapping[str, Spec],
        roster: Roster,
        view: View,
    ) -> None:
        """Asks for nodes, and lets idle ones go."""
        evacuating = self.evacuating
        self._consolidation.look(now_s, made, specs, roster, view)
        if self.evacuating != evacuating and mesh.note is not None:
            mesh.note("consolidation", "", self._consolidation.reason)
        releasable = self._idle.releasable(now_s, made, roster, view)
        demand = node_demand(specs, made.steps, releasable, now_s)
        said = "; ".join(
            f"{shape.replica_count} of {', '.join(d.rpartition('/')[2] for d in shape.deployments)}"
            for shape in demand.unplaced
        )
        if said != self._said and mesh.note is not None:
            mesh.note("node demand", "", f"no place for {said}" if said else "all have a place")
        self._said = said
        if self._provider is not None:
            self._provide(mesh, made, specs, self._provider)
            for node in releasable:
                if node in self._added:
                    self._added.discard(node)
                    mesh.agenda.after(0.0, mesh.release_node, node)

    def _provide(
        self, mesh: Mesh, made: Plan, specs: Mapping[str, Spec], provider: Provider
    ) -> None:
        """As many nodes as the replicas without a place would fill."""
        missing = [
            specs[name].demand
            for name, step in made.steps.items()
            if name in specs
            for _ in range(step.short)
        ]
        wanted = nodes_for(missing, provider.template)
        while len(self._coming) < wanted and len(self._coming) + len(self._added) < provider.most:
            self._number += 1
            node = node_like(provider.template, f"{provider.template.name}{self._number}")
            self._coming.add(node.name)
            mesh.agenda.after(provider.delay_s, self._join, mesh, node)

    def _join(self, mesh: Mesh, node: Node) -> None:
        self._coming.discard(node.name)
        self._added.add(node.name)
        mesh.add_node(node)


def node_like(template: Node, name: str) -> Node:
    """A node of another name, and GPUs of its own."""
    gpus = tuple(replace(gpu, uuid=f"{name}/{i}") for i, gpu in enumerate(template.gpus))
    return replace(template, name=name, gpus=gpus)


def nodes_for(missing: Sequence[Demand], template: Node) -> int:
    """How many empty nodes take all of these that one of them could take."""
    nodes: list[Capacity] = []
    for demand in missing:
        for capacity in nodes:
            if _take(demand, capacity):
                break
        else:
            fresh = Capacity([node_like(template, str(len(nodes)))])
            if _take(demand, fresh):
                nodes.append(fresh)
    return len(nodes)


def _take(demand: Demand, capacity: Capacity) -> bool:
    found = pick(demand, capacity)
    if found is not None:
        capacity.take(Share(found.node, found.gpu_uuids, demand))
    return found is not None
