"""The autoscaler in a simulated mesh: the live decisions, placement and journal. Pure.

It looks at a deployment when something of it changed or a delay can have ended, and places replicas
when targets, replicas or nodes changed: between that, nothing would come out differently.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.plan import NodeChange, Plan, plan
from services.autoscaler.presence import Absences, Leaving
from services.autoscaler.roster import Assigned
from services.autoscaler.scaling.record import decision_of
from services.autoscaler.scaling.rules import State
from services.autoscaler.scaling.scaler import Look
from services.autoscaler.scaling.signals import Signals
from services.autoscaler.simulation import invariants
from services.autoscaler.simulation.agenda import NEVER
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.machines import Machines
from services.autoscaler.simulation.mesh import Mesh
from services.autoscaler.simulation.observation import (
    NO_PACE,
    UNKNOWN,
    Sample,
    is_woken,
    sample_of,
    signals_of,
    view_of,
)
from services.autoscaler.simulation.pulse import TOLERANCE_S, Pulse
from services.autoscaler.simulation.store import StaleWriteError, Store
from services.autoscaler.simulation.upcoming import next_change_s, next_look_s
from services.autoscaler.simulation.watched import Watched
from services.autoscaler.startups import Starts, Startups
from services.autoscaler.view import View

_NO_STARTS = Starts()
_NO_ANSWER: tuple[float | None, str] = (None, "")

CustomFunction = Callable[[Signals], float]
OnDecision = Callable[[str, Callable[[], ScaleDecision]], None]


class SimAutoscaler:
    """One autoscaler that leads, or thinks so.

    Attributes:
        name: in stories.
        epoch: its term.
        made: its last plan.
        metrics_away: whether it sees nothing.
        targets: decided on, by deployment.
    """

    def __init__(
        self,
        mesh: Mesh,
        store: Store,
        pulse: Pulse,
        on_decision: OnDecision,
        name: str = "autoscaler",
        machines: Machines | None = None,
        functions: Mapping[str, CustomFunction] | None = None,
        known_before: bool = True,
    ) -> None:
        """Begins a term: goes on from what is kept."""
        self.name = name
        self.epoch = store.epoch
        self.made: Plan | None = None
        self.metrics_away = False
        self.targets: dict[str, int] = dict(store.targets) if known_before else {}
        self._mesh, self._store, self._pulse = mesh, store, pulse
        self._on_decision = on_decision
        self._machines = machines
        self._functions = functions or {}
        self._absences = Absences(pulse.node_grace_s)
        self._leaving = Leaving()
        self._startups = Startups()
        self._watched: dict[str, Watched] = {}
        self._view: View | None = None
        self._replan = True
        self._turn = 0
        self._based_on: dict[str, int] = {}
        for deployed in mesh.deployed.values():
            self.declare(deployed, known_before)

    def declare(self, deployed: Deployed, known_before: bool = False) -> None:
        """Takes what is declared of a deployment by now."""
        name = deployed.name
        self._replan = True
        if deployed.deleted:
            self._watched.pop(name, None)
            self.targets.pop(name, None)
            self._store.targets.pop(name, None)
        elif name in self._watched:
            self._watched[name].declare()
        else:
            kept = self._store.targets.get(name)
            watched = Watched(deployed, None if kept is None else State(kept), known_before)
            self._watched[name] = watched
            watched.pending.append((self._mesh.agenda.now_s, sample_of(deployed)))

    def look(self, now_s: float, touched: set[Deployed], moved: bool) -> None:
        """Decides, and plans what nodes must run; `write` makes it so."""
        self.made = None
        if moved:
            self._view = None
        for deployed in touched:
            watched = self._watched.get(deployed.name)
            if watched is not None:
                sample = sample_of(deployed)
                # What is seen already is no news, unless something else is on its way.
                if watched.pending or sample != watched.seen:
                    watched.pending.append((now_s, sample))
        every = self._pulse.every_tick
        for watched in self._watched.values():
            if (
                every
                or watched.pending
                or watched.look_s <= now_s + TOLERANCE_S
                or (moved and watched.deployed in touched)
            ):
                self._look_at(now_s, watched, watched.deployed.name)
        if not self.metrics_away:
            self._place(now_s, moved)

    def wake(self, now_s: float, deployed: Deployed) -> bool:
        """Decides at once: a request waits for the first replica. Whether it decided."""
        watched = self._watched.get(deployed.name)
        if watched is None:
            return False
        watched.woken_s = watched.look_s = watched.seen_since_s = now_s
        if watched.scaler.target:
            return False
        # A router's word, and the queue as it is: newer than what is seen.
        signals = signals_of(
            sample_of(deployed)._replace(redelivered=0, poison=0),
            _NO_STARTS,
            0,
            woken=True,
            window_min=watched.scaler.window_min(self._pulse.wall_s(now_s)),
        )
        self._note(now_s, watched, watched.scaler.look(now_s, signals))
        self.made = None
        if not self.metrics_away:
            self._view = None
            self._place(now_s, moved=True)
        return True

    def next_tick_s(self, now_s: float) -> float:
        """When to look again although nothing happens; NEVER if there is no need."""
        soon_s = now_s + self._pulse.tick_s
        if self._pulse.every_tick or self._replan or self._keeps_looking():
            return soon_s
        at_s = NEVER
        for watched in self._watched.values():
            if watched.pending:
                return soon_s
            at_s = min(at_s, watched.look_s)
        return at_s

    def _keeps_looking(self) -> bool:
        absent = self._mesh.absent_count
        return absent > 0 or (
            self._machines is not None and self._machines.keeps_looking(self._mesh)
        )

    def _look_at(self, now_s: float, watched: Watched, name: str) -> None:
        watched.see(now_s - self._pulse.lag_s + TOLERANCE_S, now_s)
        own = self._store.roster.of(name)
        starts, seen = _NO_STARTS, watched.seen
        if self.metrics_away:
            seen = UNKNOWN
        elif own:
            starts = watched.starts
            # They change only when replicas do, or when one that is starting is overdue.
            if self._view is None or starts.starting or not starts.ready:
                watched.view = None
            if watched.view is None or watched.view is not self._view:
                watched.view = self._seen()
                starts = self._startups.look(now_s, name, own, watched.view.replicas)
        if self._is_calm(now_s, watched, seen, starts):
            return
        pace, custom = NO_PACE, _NO_ANSWER
        if watched.pace is not None:
            pace = watched.pace.pace(now_s, watched.deployed)
        woken = is_woken(watched.woken_s, now_s)
        window_min = watched.scaler.window_min(self._pulse.wall_s(now_s))
        signals = signals_of(seen, starts, len(own), woken, pace, custom, window_min)
        if watched.rules.custom:
            signals = self._asked(watched, signals)
        look = watched.scaler.look(now_s, signals)
        self._note(now_s, watched, look)
        self._look_next(now_s, watched, look, woken)
        watched.starts = starts

    def _is_calm(self, now_s: float, watched: Watched, seen: Sample, starts: Starts) -> bool:
        """Whether a look would come out as the last one did; takes note of the load if so."""
        calm = watched.calm
        if (
            calm is None
            or now_s >= watched.delays_end_s - TOLERANCE_S
            or self._pulse.every_tick
            or seen.redelivered
            or seen.queued is None
            or seen.ongoing is None
            or starts != watched.starts
        ):
            return False
        load = seen.queued + seen.ongoing
        until_s = calm.until_s(now_s, seen.queued, seen.ongoing)
        means = watched.scaler.remember(now_s, load, load)
        if until_s <= now_s + TOLERANCE_S:
            if means is None or not calm.allows(*means):
                return False
            until_s = now_s + self._pulse.tick_s
        watched.look_s = min(until_s, watched.delays_end_s)
        return True

    def _look_next(self, now_s: float, watched: Watched, look: Look, woken: bool) -> None:
        """By when to look again although nothing happens, and although the load wavers."""
        soon_s = now_s + self._pulse.tick_s
        watched.delays_end_s = now_s
        if woken:
            # The scaler was told more than what is seen.
            watched.seen_since_s = now_s
        if woken or (watched.pace is not None and watched.pace.moves(watched.deployed)):
            watched.look_s = soon_s
            return
        overdue_s = self._overdue_s(watched) if look.signals.starting else NEVER
        overdue_s = min(overdue_s, watched.scaler.tells_s, self._window_changes_s(watched, now_s))
        watched.look_s = next_look_s(
            look.outcome, watched.rules, watched.seen_since_s, now_s, self._pulse.tick_s
        )
        calm = watched.calm
        if calm is not None:
            ends_s = min(next_change_s(look.outcome.state, watched.rules, now_s), overdue_s)
            watched.delays_end_s = ends_s
            calm_s = calm.until_s(now_s, look.signals.queued or 0, look.signals.ongoing or 0)
            if calm_s > now_s + TOLERANCE_S and not watched.pending:
                watched.look_s = min(calm_s, ends_s)
        watched.look_s = max(soon_s, min(watched.look_s, overdue_s))

    def _window_changes_s(self, watched: Watched, now_s: float) -> float:
        """When a window of the policy next opens or closes."""
        return watched.scaler.windows_until_s(self._pulse.wall_s(now_s)) - self._pulse.begun_s

    def _overdue_s(self, watched: Watched) -> float:
        """From when on a replica that is starting may be overdue."""
        own = self._store.roster.of(watched.deployed.name)
        replicas = self._mesh.replicas
        begun_s = min((replicas[r].assigned_s for r in own if r in replicas), default=0.0)
        return begun_s + self._startups.allowance_s(watched.deployed.name)

    def _asked(self, watched: Watched, signals: Signals) -> Signals:
        function = self._functions.get(watched.rules.custom)
        if function is None:
            return replace(signals, custom_error=f"{watched.rules.custom} is not simulated")
        try:
            return replace(signals, custom=float(function(signals)))
        except Exception as error:  # noqa: BLE001, a user's function may raise anything
            return replace(signals, custom_error=f"{type(error).__name__}: {error}")

    def _note(self, now_s: float, watched: Watched, look: Look) -> None:
        name = watched.deployed.name
        target = look.outcome.state.target
        if watched.calm is not None:
            watched.calm.looked(now_s, look.signals, look.outcome)
        if self.targets.get(name) != target:
            invariants.check_target(now_s, watched, look, self.targets.get(name))
            _count(watched.deployed, self.targets.get(name), target)
            self._replan = True
            self.targets[name] = target
            self._store.targets[name] = target
            watched.deployed.wakes = target == 0
        if not look.noteworthy:
            return
        declared = watched.deployed.declared
        watched.numbers += 1
        decide = partial(
            decision_of,
            name,
            watched.numbers,
            look.signals,
            declared.scaling if declared.HasField("scaling") else None,
            declared.max_ongoing_requests,
            watched.rules,
            look.before,
            look.outcome,
            now_s,
            self._pulse.begun_s + now_s,
            self.epoch,
        )
        self._on_decision(name, decide)

    def _seen(self) -> View:
        if self._view is None:
            self._view = view_of(self._mesh)
        return self._view

    def _place(self, now_s: float, moved: bool) -> None:
        if not (self._replan or moved or self._pulse.every_tick or self._keeps_looking()):
            return
        roster, view = self._store.roster, view_of(self._mesh)
        self._view = view
        machines = self._machines
        gone = self._absences.gone(now_s, view, roster.nodes)
        specs = {name: watched.spec for name, watched in self._watched.items()}
        self._turn += 1
        self._based_on = dict(self._store.revisions)
        self.made = made = plan(
            specs,
            self.targets,
            roster,
            view,
            self._store.new_id,
            gone=gone,
            evacuating=machines.evacuating if machines is not None else frozenset(),
            leaving=self._leaving.current(view),
            protected=self._protected(now_s, view),
            turn=self._turn,
        )
        self._replan = any(step.deferred for step in made.steps.values())
        if machines is not None:
            machines.look(now_s, self._mesh, made, specs, roster, view)

    def _protected(self, now_s: float, view: View) -> frozenset[str]:
        roster, seen = self._store.roster, view.replicas
        return frozenset(
            replica_id
            for name, own in roster.by_deployment.items()
            if len(own) > self.targets.get(name, 0)
            for replica_id in own
            if self._startups.has_its_chance(now_s, name, replica_id, seen.get(replica_id))
        )

    def write(self) -> bool:
        """Makes the plan so, node by node; whether all of it could be written."""
        made, self.made = self.made, None
        if made is None:
            return True
        try:
            for node, change in made.changes.items():
                self._write_node(node, change)
        except StaleWriteError:
            self._replan = True
            return False
        return True

    def _write_node(self, node: str, change: NodeChange) -> None:
        store, mesh, now_s = self._store, self._mesh, self._mesh.agenda.now_s
        before = dict(store.roster.on(node))
        after = {key: kept for key, kept in before.items() if key not in change.remove}
        for name, new in change.create:
            after[new.replica_id] = Assigned(
                new.replica_id, name, new.generation, new.share, new.request_timeout_s
            )
        if change.retimed:
            after = {key: self._retimed(kept) for key, kept in after.items()}
        for replica_id in change.remove & before.keys():
            gone = replica_id in mesh.replicas and not mesh.nodes[node].present
            if not gone and before[replica_id].deployment in self._watched:
                invariants.check_removal(
                    now_s,
                    mesh,
                    replica_id,
                    self._watched[before[replica_id].deployment],
                    self._startups,
                    (self._machines is not None and node in self._machines.evacuating)
                    or bool(mesh.nodes[node].fault_of(before[replica_id].share)),
                )
        revision = store.put(node, after.values(), self._based_on.get(node, 0), self.epoch)
        for replica_id in change.remove & before.keys():
            old = before[replica_id]
            self._leaving.add(replica_id, old.deployment, old.share, revision)
        if node in mesh.nodes:
            mesh.assign(node, after, revision, self.epoch)

    def _retimed(self, kept: Assigned) -> Assigned:
        watched = self._watched.get(kept.deployment)
        if watched is None:
            return kept
        return replace(kept, request_timeout_s=watched.spec.request_timeout_s)


def _count(deployed: Deployed, before: int | None, target: int) -> None:
    if before is not None:
        deployed.ups += target > before
        deployed.downs += target < before
        deployed.cold_starts += before == 0
