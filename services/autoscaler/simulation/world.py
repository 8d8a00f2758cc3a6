"""One simulated run: the mesh, its autoscalers, what is scripted, and the passing of time. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler import deployment_rules
from services.autoscaler.simulation import invariants
from services.autoscaler.simulation.agenda import NEVER
from services.autoscaler.simulation.deployed import Deployed, Fate
from services.autoscaler.simulation.machines import Machines
from services.autoscaler.simulation.mesh import Mesh
from services.autoscaler.simulation.pulse import TOLERANCE_S, Pulse
from services.autoscaler.simulation.recovery import Recovery
from services.autoscaler.simulation.sim_autoscaler import CustomFunction, SimAutoscaler
from services.autoscaler.simulation.sim_node import SimNode
from services.autoscaler.simulation.store import Store
from services.wire.names import deployment_id

TAKE_OVER_S = 8.0
"""After how long another autoscaler takes over from one that is gone."""

MAX_JOURNAL = 100_000

ALL_CHECKED = 20
CHECKED_EVERY = 20
"""Of a run whose journal is not kept, the first decisions and then every so manyth is checked."""


class World:
    """A run.

    Attributes:
        mesh: nodes, replicas and requests.
        autoscalers: those that lead, or think so.
        journal: decisions that were noted, each with its deployment.
        decisions: how many there were.
    """

    def __init__(
        self,
        pulse: Pulse | None = None,
        machines: Machines | None = None,
        functions: Mapping[str, CustomFunction] | None = None,
        seed: int = 0,
        keep_journal: bool = True,
    ) -> None:
        """Nothing is there, and nothing has happened."""
        self.mesh = Mesh(seed)
        self.mesh.on_wake = self._on_wake
        self.mesh.on_lost = self._on_lost
        self._recovery = Recovery()
        self.autoscalers: list[SimAutoscaler] = []
        self.journal: list[tuple[str, ScaleDecision]] = []
        self.decisions = 0
        self.on_decision: Callable[[str, ScaleDecision], None] | None = None
        self._store = Store()
        self._pulse = pulse or Pulse()
        self._machines = machines
        self._functions = functions
        self._keep_journal = keep_journal
        self._tick_s = NEVER
        self._last_tick_s = -NEVER
        self._metrics_away = False
        self._times: Sequence[float] = ()
        self._owners: Sequence[Deployed] = ()
        self._only: Deployed | None = None
        self._next = 0

    @property
    def now_s(self) -> float:
        """The instant."""
        return self.mesh.agenda.now_s

    def lead(self, name: str = "autoscaler", known_before: bool = False) -> SimAutoscaler:
        """An autoscaler begins a term."""
        self._store.epoch += 1
        made = SimAutoscaler(
            self.mesh,
            self._store,
            self._pulse,
            self._note,
            name,
            self._machines,
            self._functions,
            known_before,
        )
        made.metrics_away = self._metrics_away
        self.autoscalers.append(made)
        self._tick_s = min(self._tick_s, self._tick_at(self.now_s))
        return made

    def declare(self, deployed: Deployed) -> None:
        """A deployment is created."""
        self.mesh.deployed[deployed.name] = deployed
        self._declared(deployed)

    def change(self, declared: Deployment) -> None:
        """A deployment is declared anew; its generation rises if replicas are to be replaced."""
        deployed = self.mesh.deployed[deployment_id(declared.name)]
        before = deployed.declared
        same = deployment_rules.runs_the_same(before, declared)
        declared.generation = before.generation + (0 if same else 1)
        deployed.declare(declared, self.now_s)
        self._declared(deployed)

    def delete(self, name: str) -> None:
        """A deployment is deleted, and with it what waits."""
        deployed = self.mesh.deployed[name]
        deployed.deleted = True
        deployed.changed_s = self.now_s
        for i, fate in enumerate(deployed.fates):
            if fate == Fate.QUEUED:
                deployed.fates[i] = Fate.DELETED
        deployed.queued = 0
        deployed.queue.clear()
        self._declared(deployed)

    def _declared(self, deployed: Deployed) -> None:
        for autoscaler in self.autoscalers:
            autoscaler.declare(deployed)
        self.mesh.touched.add(deployed)
        self._tick_s = min(self._tick_s, self._tick_at(self.now_s))

    def replay(self, times: Sequence[float], owners: Sequence[Deployed] | Deployed) -> None:
        """Has requests arrive.

        Args:
            times: instants in seconds, ascending.
            owners: the deployment of each, or of all.
        """
        self._times = times
        if isinstance(owners, Deployed):
            self._only = owners
        else:
            self._owners = owners
        self._next = 0

    def restart(self) -> None:
        """The autoscaler ends and starts again at once."""
        self.autoscalers.clear()
        self.lead(known_before=True)
        self._lost("the restart of the autoscaler")

    def fail_over(self) -> None:
        """The autoscaler dies; another one takes over."""
        self.autoscalers.clear()
        self.mesh.agenda.after(TAKE_OVER_S, self._take_over)
        self._lost("the death of the autoscaler")

    def _take_over(self) -> None:
        if self.mesh.note is not None:
            self.mesh.note("takes over", "", "another autoscaler")
        self.lead("another autoscaler", known_before=True)

    def see_nothing(self, away: bool) -> None:
        """Metrics goes away, or is back."""
        self._metrics_away = away
        for autoscaler in self.autoscalers:
            autoscaler.metrics_away = away
        self.mesh.touched.update(self.mesh.deployed.values())
        self.mesh.moved = True
        if not away and self._recovery.due_s is not None:
            # Nothing could heal meanwhile.
            self._lost("the absence of metrics")

    def fail_gpu(self, node: str, number: int, fault: str) -> None:
        """A GPU fails, or works again if there is no fault."""
        self.mesh.fail_gpu(node, number, fault)
        self._lost(f"{fault or 'the return'} of GPU {number} of node {node}")

    def _on_lost(self, node: SimNode) -> None:
        self._lost(f"the loss of node {node.name}", self._pulse.node_grace_s)

    def _lost(self, what: str, grace_s: float = 0.0) -> None:
        due_s = self._recovery.begin(self.now_s, what, grace_s)
        self.mesh.agenda.at(due_s, self._check_recovery)

    def _check_recovery(self) -> None:
        if self._metrics_away:
            return
        if not self.autoscalers:
            self._recovery.fail_if_due(self.now_s, "nobody leads")
            return
        evacuating = self._machines.evacuating if self._machines is not None else ()
        self._recovery.look(self.now_s, self.mesh, self._store, evacuating)

    def run(self, until_s: float) -> None:
        """Lets time pass, up to and including an instant.

        Raises:
            InvariantError: if what must never happen happens.
        """
        mesh, agenda = self.mesh, self.mesh.agenda
        heap, touched, arrive = agenda.heap, mesh.touched, mesh.arrive
        times, owners, only = self._times, self._owners, self._only
        step_s, count, position = self._pulse.tick_s, len(self._times), self._next
        arrival_s = times[position] if position < count else NEVER
        while True:
            if touched and self._tick_s >= agenda.now_s + step_s:
                self._tick_s = self._tick_at(agenda.now_s)
            event_s = heap[0][0] if heap else NEVER
            if event_s <= arrival_s and event_s <= self._tick_s:
                if event_s > until_s:
                    break
                agenda.now_s, _, action, args = heappop(heap)
                action(*args)
            elif arrival_s <= self._tick_s:
                if arrival_s > until_s:
                    break
                agenda.now_s = arrival_s
                arrive(only if only is not None else owners[position])
                position += 1
                arrival_s = times[position] if position < count else NEVER
            elif self._tick_s <= until_s:
                agenda.now_s = self._tick_s
                self._tick()
            else:
                break
        self._next = position
        agenda.now_s = max(agenda.now_s, until_s)
        invariants.check_mesh(mesh)

    @property
    def busy(self) -> bool:
        """Whether requests wait, run or are to come."""
        held = any(d.held for d in self.mesh.deployed.values())
        return held or self._next < len(self._times)

    def _tick(self) -> None:
        mesh, now_s = self.mesh, self.now_s
        self._last_tick_s = now_s
        touched, moved = mesh.touched.copy(), mesh.moved
        mesh.touched.clear()
        mesh.moved = False
        for deployed in touched:
            invariants.check_bound(deployed, now_s)
        next_s = NEVER
        # Two that lead at once both look before either writes: the worst case.
        for autoscaler in self.autoscalers:
            autoscaler.look(now_s, touched, moved)
        for autoscaler in self.autoscalers:
            autoscaler.write()
            next_s = min(next_s, autoscaler.next_tick_s(now_s))
        if self._recovery.due_s is not None and self.autoscalers:
            self._check_recovery()
        self._tick_s = NEVER if next_s == NEVER else self._tick_at(next_s)

    def _tick_at(self, at_s: float) -> float:
        """The first instant of a tick from `at_s` on that has not been."""
        step_s = self._pulse.tick_s
        tick_s = math.ceil((at_s - TOLERANCE_S) / step_s) * step_s
        return tick_s if tick_s > self._last_tick_s else self._last_tick_s + step_s

    def _on_wake(self, deployed: Deployed) -> None:
        """A router's word is on its way, once for all requests that come meanwhile."""
        deployed.wakes = False
        self.mesh.agenda.after(self._pulse.wake_s, self._wake, deployed)

    def _wake(self, deployed: Deployed) -> None:
        for autoscaler in self.autoscalers:
            if autoscaler.wake(self.now_s, deployed):
                autoscaler.write()
        deployed.wakes = not any(a.targets.get(deployed.name) for a in self.autoscalers)

    def _note(self, deployment: str, decide: Callable[[], ScaleDecision]) -> None:
        self.decisions += 1
        checked = self.decisions <= ALL_CHECKED or not self.decisions % CHECKED_EVERY
        if not checked and not self._keep_journal:
            # A record takes as long as ten looks: of very many, some are made and checked.
            return
        decision = decide()
        invariants.check_decision(decision)
        if self._keep_journal and len(self.journal) < MAX_JOURNAL:
            self.journal.append((deployment, decision))
        if self.on_decision is not None:
            self.on_decision(deployment, decision)
