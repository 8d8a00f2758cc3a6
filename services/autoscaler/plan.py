"""From what is declared, decided, assigned and seen to what each node must run next. Pure.

Deployments that have what they want cost a glance. What is missing is placed one replica at a time,
for the deployment that has the least of what it wants first, so that one that asks for a thousand
does not keep another from its first; at most so many in one look, the rest in the next.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from services.autoscaler import cordon, rollout
from services.autoscaler.capacity import Capacity, Demand, Node, Share, Used
from services.autoscaler.placement import Strategy, explain, never_fits, pick
from services.autoscaler.rollout import Draft, Replica, Spec, Step
from services.autoscaler.roster import Assigned, Roster
from services.autoscaler.view import ReplicaView, State, View

MAX_PLACEMENTS = 2000
# Each demand that differs looks at every node: 100 of them over 1,000 nodes are some 0.2 s.
MAX_DEMANDS = 100

_NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True)
class NodeChange:
    """What changes on one node.

    Attributes:
        create: replicas that are new, each with the id of its deployment.
        remove: ids of replicas that go.
        retimed: whether a replica that stays has another request timeout.
    """

    create: list[tuple[str, Replica]] = field(default_factory=list)
    remove: set[str] = field(default_factory=set)
    retimed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be next.

    Attributes:
        steps: by deployment, those included that were deleted and still have replicas.
        changes: by node, of nodes on which anything changes.
        capacity: what will be held once that is done; what goes holds its share still.
        settled: nothing is going on: nothing comes, goes, moves, starts or lacks a place.
        stranded: replicas that run on cordoned GPUs, those that are leaving included, by
            deployment: id and reason.
    """

    steps: Mapping[str, Step]
    changes: Mapping[str, NodeChange]
    capacity: Capacity
    settled: bool
    stranded: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def plan(
    specs: Mapping[str, Spec],
    targets: Mapping[str, int],
    roster: Roster,
    view: View,
    new_id: Callable[[str], str],
    *,
    gone: frozenset[str] = _NOBODY,
    evacuating: frozenset[str] = _NOBODY,
    leaving: Mapping[str, tuple[str, Share]] | None = None,
    protected: Set[str] = _NOBODY,
    max_placements: int = MAX_PLACEMENTS,
    turn: int = 0,
) -> Plan:
    """The next assignments.

    Args:
        specs: what is declared, by deployment.
        targets: how many replicas were decided on, by deployment. One that has none keeps as many
            as it has.
        roster: what is assigned; not changed.
        view: what is seen.
        new_id: makes a replica id for a deployment.
        gone: ids of nodes whose replicas must move.
        evacuating: ids of nodes that are being emptied: nothing new goes there.
        leaving: deployment and share of what was removed and may still run, by replica id.
        protected: ids of replicas that are starting for the first time and within their time.
        max_placements: how many replicas to place at most.
        turn: rises with every look, so that all get theirs where there is too much for one.
    """
    apart = _apart(view, roster, leaving or {})
    nodes = cordon.nodes_of(view, roster, apart.values())
    faults = cordon.faults_of(nodes)
    stranded = cordon.stranded(faults, nodes, roster, view)
    capacity = _capacity(nodes, _running(roster, apart, view), evacuating)
    moving = gone | evacuating
    steps: dict[str, Step] = {}
    drafts: dict[str, Draft] = {}
    changes: dict[str, NodeChange] = {}
    for name in sorted(specs.keys() | roster.by_deployment.keys()):
        spec = specs.get(name)
        own = _replicas(roster.of(name), view, protected)
        target = targets.get(name, len(own)) if spec is not None else 0
        spec = spec if spec is not None else Spec(name, 0)
        _retime(spec, own, changes)
        if _is_right(spec, target, own, moving, stranded):
            steps[name] = Step(target, tuple(own))
        else:
            drafts[name] = rollout.draft(spec, target, own, capacity, gone, evacuating, stranded)
    settled = not apart and not drafts and all(_is_quiet(step) for step in steps.values())
    lost = {k: why for k, (_, held) in apart.items() if (why := cordon.why_stranded(faults, held))}
    if drafts:
        # What leaves a cordoned GPU makes room for nobody.
        owners = Counter(owner for k, (owner, _) in apart.items() if k not in lost)
        placer = _Placer(specs, targets, drafts, capacity, new_id)
        placer.run(max_placements, turn)
        for name, drafted in drafts.items():
            steps[name] = _finish(name, drafted, placer, view, owners[name])
            _note(name, steps[name], changes)
    return Plan(steps, changes, capacity, settled, _by_owner(stranded | lost, roster, apart))


def _capacity(
    nodes: Sequence[Node], running: Iterator[tuple[Share, Used]], evacuating: frozenset[str]
) -> Capacity:
    capacity = Capacity(nodes, running=running)
    for node in evacuating:
        capacity.close(node, "it is being emptied")
    return capacity


def _by_owner(
    stranded: Mapping[str, str], roster: Roster, apart: Mapping[str, tuple[str, Share]]
) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for replica_id in sorted(stranded):
        kept = roster.by_id.get(replica_id)
        owner = kept.deployment if kept is not None else apart[replica_id][0]
        found.setdefault(owner, []).append((replica_id, stranded[replica_id]))
    return found


def _apart(
    view: View, roster: Roster, leaving: Mapping[str, tuple[str, Share]]
) -> dict[str, tuple[str, Share]]:
    """Deployment and share of what is not assigned and may still run, by replica id."""
    apart = unassigned(view, roster)
    # What is noted as leaving may be assigned still: the write that took it away may have failed.
    apart.update((k, held) for k, held in leaving.items() if k not in roster.by_id)
    return apart


def _is_quiet(step: Step) -> bool:
    for replica in step.keep:
        if replica.state is not State.READY and replica.state is not State.FAILED:
            return False
    return True


def unassigned(view: View, roster: Roster) -> dict[str, tuple[str, Share]]:
    """Replicas that run although nothing assigns them any more: they hold their share still."""
    assigned = roster.by_id
    return {
        replica_id: (
            seen.deployment,
            Share(seen.node, seen.gpu_uuids, Demand(seen.gpus), seen.used_bytes),
        )
        for replica_id, seen in view.replicas.items()
        if replica_id not in assigned and seen.state is not State.STOPPED
    }


def _running(
    roster: Roster, apart: Mapping[str, tuple[str, Share]], view: View
) -> Iterator[tuple[Share, Used]]:
    """All that is held, with the GPU memory that was measured."""
    seen = view.replicas
    for replica_id, assigned in roster.by_id.items():
        share = assigned.share
        if share.gpu_uuids:
            used = _used(share, seen.get(replica_id))
            yield (share if used is None else _measured(share, used)), used
        else:
            yield share, None
    for replica_id, (_, share) in apart.items():
        used = _used(share, seen.get(replica_id))
        yield (share if used is None else _measured(share, used)), used


def _used(share: Share, seen: ReplicaView | None) -> Used:
    """GPU memory that a replica uses of each of its GPUs; None if that is not known."""
    if seen is None:
        # Not reported yet: it has allocated nothing.
        return (0,) * len(share.gpu_uuids)
    return seen.used_bytes if seen.gpu_uuids == share.gpu_uuids else None


def _measured(share: Share, used: tuple[int, ...]) -> Share:
    """A share with the GPU memory that was measured, if that is more than was declared."""
    declared = share.demand.gpu_memory_bytes
    # Most shares are on one GPU, and most replicas keep to what they declare.
    if (used[0] if len(used) == 1 else max(used, default=0) * len(used)) <= declared:
        return share
    # `replace` takes five times as long, and there may be 20,000 at every look.
    return Share(share.node, share.gpu_uuids, share.demand, used)


def _replicas(own: Mapping[str, Assigned], view: View, protected: Set[str]) -> list[Replica]:
    seen = view.replicas
    result = []
    for replica_id, assigned in own.items():
        status = seen.get(replica_id)
        result.append(
            Replica(
                replica_id,
                assigned.generation,
                assigned.share
                if status is None or status.used_bytes is None
                else _measured(assigned.share, status.used_bytes),
                status.state if status is not None else State.UNKNOWN,
                status.ongoing_count if status is not None else 0,
                replica_id in protected,
                assigned.request_timeout_s,
            )
        )
    return result


def _is_right(
    spec: Spec,
    target: int,
    own: list[Replica],
    moving: frozenset[str],
    stranded: Mapping[str, str],
) -> bool:
    if len(own) != target:
        return False
    if stranded and any(replica.replica_id in stranded for replica in own):
        return False
    # A loop: a generator for each deployment takes twice as long.
    for replica in own:
        if replica.generation != spec.generation or replica.share.node in moving:
            return False
    return True


def _retime(spec: Spec, own: list[Replica], changes: dict[str, NodeChange]) -> None:
    # What belongs to no deployment any more goes in this very step.
    for replica in own:
        if replica.request_timeout_s != spec.request_timeout_s and spec.generation:
            changes.setdefault(replica.node, NodeChange()).retimed = True


class _Placer:
    """Places what is missing, fairly."""

    def __init__(
        self,
        specs: Mapping[str, Spec],
        targets: Mapping[str, int],
        drafts: Mapping[str, Draft],
        capacity: Capacity,
        new_id: Callable[[str], str],
    ) -> None:
        self.specs = specs
        self.targets = targets
        self.capacity = capacity
        self.created: dict[str, list[Replica]] = {}
        self.refused: set[str] = set()
        self._drafts = drafts
        self._new_id = new_id
        self._hopeless: set[Demand] = set()
        self._never: dict[Demand, str] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def run(self, max_placements: int, turn: int) -> None:
        considered = self._considered(turn)
        heap = [
            self._entry(name)
            for name, drafted in self._drafts.items()
            if drafted.missing and self.specs[name].demand in considered
        ]
        heapq.heapify(heap)
        left = max_placements
        while heap:
            name = heap[0][2]
            demand = self.specs[name].demand
            if demand not in self._hopeless and left <= 0:
                heapq.heappop(heap)
            elif demand in self._hopeless or not self._place_one(name):
                # Nothing becomes free while this lasts: what failed once fails again.
                self._hopeless.add(demand)
                self.refused.add(name)
                heapq.heappop(heap)
            else:
                left -= 1
                if len(self.created[name]) < self._drafts[name].missing:
                    heapq.heapreplace(heap, self._entry(name))
                else:
                    heapq.heappop(heap)

    def never(self, demand: Demand, view: View) -> str:
        """Why no node could ever take it."""
        if demand not in self._never:
            self._never[demand] = never_fits(demand, view.nodes)
        return self._never[demand]

    def _considered(self, turn: int) -> set[Demand]:
        """Demands to look at now: all, or as many as there is time for, in turn."""
        demands = list(
            dict.fromkeys(self.specs[name].demand for name, d in self._drafts.items() if d.missing)
        )
        if len(demands) <= MAX_DEMANDS:
            return set(demands)
        start = turn * MAX_DEMANDS % len(demands)
        return set((demands[start:] + demands[:start])[:MAX_DEMANDS])

    def _entry(self, name: str) -> tuple[float, float, str]:
        # Among equals the larger demand first: the smaller one still fits beside it.
        has = len(self._drafts[name].keep) + len(self.created.get(name, ()))
        return (has / max(1, self.targets.get(name, 1)), -self.specs[name].demand.gpus, name)

    def _place_one(self, name: str) -> bool:
        spec = self.specs[name]
        own = self._own_counts(name) if spec.strategy is Strategy.SPREAD else None
        found = pick(spec.demand, self.capacity, spec.strategy, own)
        if found is None:
            return False
        share = Share(found.node, found.gpu_uuids, spec.demand)
        self.capacity.take(share)
        if own is not None:
            own[found.node] = own.get(found.node, 0) + 1
        replica = Replica(
            self._new_id(name), spec.generation, share, request_timeout_s=spec.request_timeout_s
        )
        self.created.setdefault(name, []).append(replica)
        return True

    def _own_counts(self, name: str) -> dict[str, int]:
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = {}
            for replica in self._drafts[name].keep:
                counts[replica.node] = counts.get(replica.node, 0) + 1
        return counts


def _finish(name: str, drafted: Draft, placer: _Placer, view: View, leaving: int) -> Step:
    """The step of a deployment, of which `leaving` replicas have not stopped yet."""
    spec = placer.specs.get(name)
    create = placer.created.get(name, [])
    keep, remove = drafted.keep, drafted.remove
    target = placer.targets.get(name, len(keep) + len(remove)) if spec is not None else 0
    left = drafted.missing - len(create)
    if spec is None or name not in placer.refused:
        return Step(target, tuple(keep), tuple(remove), tuple(create), deferred=left)
    short = min(left, max(0, target - len(keep) - len(create) - leaving))
    if not (create or remove or leaving):
        remove = rollout.make_room(spec, keep, placer.capacity)
        going = {replica.replica_id for replica, _ in remove}
        keep = [replica for replica in keep if replica.replica_id not in going]
    return Step(
        target,
        tuple(keep),
        tuple(remove),
        tuple(create),
        unplaced=left,
        short=short,
        why=explain(spec.demand, placer.capacity, spec.strategy),
        never=placer.never(spec.demand, view),
    )


def _note(name: str, step: Step, changes: dict[str, NodeChange]) -> None:
    for replica in step.create:
        changes.setdefault(replica.node, NodeChange()).create.append((name, replica))
    for replica, _ in step.remove:
        changes.setdefault(replica.node, NodeChange()).remove.add(replica.replica_id)
