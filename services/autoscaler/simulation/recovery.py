"""Whether the mesh is as it should be again after a loss. Pure: time is an argument."""

from collections.abc import Iterable

from services.autoscaler.assignments import spec_of
from services.autoscaler.capacity import Capacity
from services.autoscaler.placement import pick
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.mesh import Mesh
from services.autoscaler.simulation.ownership import InvariantError
from services.autoscaler.simulation.pulse import TOLERANCE_S
from services.autoscaler.simulation.store import Store
from services.autoscaler.view import State

HEALS_WITHIN_S = 30.0
"""DESIGN's bar for any single crash."""


class Recovery:
    """What was lost, and by when all must be well again.

    Attributes:
        due_s: by when; None: all is well since the last loss.
    """

    def __init__(self) -> None:
        """Nothing was lost yet."""
        self.due_s: float | None = None
        self._lost = ""

    def begin(self, now_s: float, lost: str, grace_s: float = 0.0) -> float:
        """Something is lost, or was; returns by when all must be well again.

        Args:
            now_s: the instant.
            lost: what, for a person.
            grace_s: how long it may be away before anything is done about it.
        """
        self.due_s = max(self.due_s or 0.0, now_s + grace_s + HEALS_WITHIN_S)
        self._lost = lost
        return self.due_s

    def look(self, now_s: float, mesh: Mesh, store: Store, evacuating: Iterable[str]) -> None:
        """Checks I8, at an instant at which somebody leads and sees: it heals in time.

        Raises:
            InvariantError: if it is due, and something is amiss still.
        """
        if self.due_s is None:
            return
        wrong = amiss(mesh, store, evacuating)
        if not wrong:
            self.due_s = None
            return
        self.fail_if_due(now_s, wrong)

    def fail_if_due(self, now_s: float, wrong: str) -> None:
        """Checks I8 where it is known what is amiss.

        Raises:
            InvariantError: if all had to be well by now.
        """
        if self.due_s is not None and now_s >= self.due_s - TOLERANCE_S:
            raise InvariantError(
                f"I8: {HEALS_WITHIN_S:g} s after {self._lost} it is not healed at {now_s:g} s: "
                f"{wrong}"
            )


def amiss(mesh: Mesh, store: Store, evacuating: Iterable[str] = ()) -> str:
    """What is not as targets and assignments say, in a sentence; empty if all is well."""
    roster = store.roster
    for name in sorted(roster.nodes):
        node, told = mesh.nodes.get(name), roster.on(name).keys()
        if node is None or not node.present:
            if told:
                return f"{', '.join(sorted(told))} on node {name}, which is gone"
            continue
        for replica_id, kept in roster.on(name).items():
            if node.fault_of(kept.share):
                return f"{replica_id} on a GPU of node {name} that has failed"
        running = {r.replica_id for r in node.replicas.values() if r.state is not State.DRAINING}
        if running != told:
            return f"node {name} runs {sorted(running)}, assigned are {sorted(told)}"
    for d in mesh.deployed.values():
        wrong = _miscounted(mesh, store, d, evacuating)
        if wrong:
            return wrong
    return ""


def _miscounted(mesh: Mesh, store: Store, d: Deployed, evacuating: Iterable[str]) -> str:
    own = store.roster.of(d.name)
    target = 0 if d.deleted else store.targets.get(d.name)
    if target is None or len(own) == target:
        return ""
    said = f"{d.name} has {len(own)} of {target} replicas"
    if len(own) < target:
        spec = spec_of(d.declared)
        nodes = [node.seen for node in mesh.nodes.values()]
        capacity = Capacity(nodes, (r.share for r in mesh.replicas.values()))
        for node in evacuating:
            capacity.close(node, "it is being emptied")
        found = pick(spec.demand, capacity, spec.strategy)
        return f"{said}, and there is room on node {found.node}" if found is not None else ""
    # One that is starting has its chance; an old one stays until there is a new one.
    staying = sum(
        mesh.replicas[replica_id].state is State.STARTING
        or kept.generation != d.declared.generation
        for replica_id, kept in own.items()
    )
    return said if len(own) - staying > target else ""
