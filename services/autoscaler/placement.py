"""Where a replica goes: filter, score, pick. Pure.

Compact: the fullest GPU that fits, then the fullest node, so that whole nodes become idle and can
be released. Spread: the node with the fewest replicas of the deployment, then the emptiest. Every
refusal of a node has its sentence.

Each node is looked at once for each demand and again only when something on it changed: the first
placement of a demand over 1,000 nodes costs some milliseconds, every further one a tenth of one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from services.autoscaler.capacity import (
    ROUNDING,
    Capacity,
    Demand,
    Gpu,
    Load,
    Node,
    is_accelerator,
)

MAX_NODES_NAMED = 5
MAX_REASONS = 4
MAX_GPUS_NAMED = 2
# Looks that are kept: beyond it a demand is looked at anew, which costs time only.
MAX_SURVEYS = 256


class Strategy(Enum):
    """Which of the nodes that fit."""

    COMPACT = "compact"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica goes."""

    node: str
    gpu_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node does not take a replica."""

    node: str
    reason: str


# Fullness of the GPU, of the node, name of the node, the GPUs' positions: compared in this order.
_Candidate = tuple[float, float, str, tuple[int, ...]]


def place(
    demand: Demand,
    capacity: Capacity,
    strategy: Strategy = Strategy.COMPACT,
    own_counts: Mapping[str, int] | None = None,
) -> Place | tuple[Refusal, ...]:
    """A place for one more replica, or each node's reason not to take it, by node.

    Args:
        demand: what the replica needs.
        capacity: what there is; it is not changed, taking the place is the caller's.
        strategy: which of the nodes that fit.
        own_counts: replicas of the same deployment by node, for SPREAD.
    """
    found = pick(demand, capacity, strategy, own_counts)
    if found is not None:
        return found
    refusals = _survey(demand, capacity, strategy).refusals
    return tuple(Refusal(node, refusals[node]) for node in sorted(refusals))


def pick(
    demand: Demand,
    capacity: Capacity,
    strategy: Strategy = Strategy.COMPACT,
    own_counts: Mapping[str, int] | None = None,
    least_fullness: float = 0.0,
) -> Place | None:
    """As `place`, without the reasons, and only on nodes at least so full if that is asked for."""
    survey = _survey(demand, capacity, strategy)
    candidates: Iterable[_Candidate] = survey.candidates.values()
    if least_fullness:
        least = round(least_fullness, 6)
        candidates = [c for c in candidates if abs(c[1]) >= least]
    if strategy is Strategy.COMPACT:
        # Fullness is negated in the candidates: the least is the fullest.
        best = min(candidates, default=None)
    else:
        own = own_counts or {}
        best = min(candidates, key=lambda c: (own.get(c[2], 0), c[1], c[0], c[2]), default=None)
    if best is None:
        return None
    gpus = capacity.loads[best[2]].node.gpus
    return Place(best[2], tuple(gpus[i].uuid for i in best[3]))


def explain(demand: Demand, capacity: Capacity, strategy: Strategy = Strategy.COMPACT) -> str:
    """Why no node takes a replica, in one sentence however many nodes there are."""
    survey = _survey(demand, capacity, strategy)
    if survey.summary is None:
        survey.summary = summarise(survey.refusals)
    return survey.summary


def summarise(refusals: Mapping[str, str]) -> str:
    """Reasons by node as one sentence: each node if they are few, otherwise counted by reason."""
    if len(refusals) <= MAX_NODES_NAMED:
        return ", ".join(f"{node}: {refusals[node]}" for node in sorted(refusals))
    counts = sorted(Counter(refusals.values()).items(), key=lambda item: (-item[1], item[0]))
    said = [f"{_nodes(count)}: {reason}" for reason, count in counts[:MAX_REASONS]]
    rest = sum(count for _, count in counts[MAX_REASONS:])
    return "; ".join([*said, f"{_nodes(rest)} for other reasons"] if rest else said)


def never_fits(demand: Demand, nodes: Iterable[Node]) -> str:
    """Why no node that is known could take a replica even if it were empty; empty if one could.

    Says nothing while no node is known.
    """
    known = list(nodes)
    empty = [Load(_vacated(node)) for node in known]
    if not empty or any(not isinstance(_consider(demand, load, False), str) for load in empty):
        return ""
    return _short_of(demand, known) or "no node that is known has all that it needs at once"


class _Survey:
    """What each node says to a demand, kept up to date by what changed."""

    __slots__ = ("_demand", "_looked", "_spread", "candidates", "refusals", "summary")

    def __init__(self, demand: Demand, strategy: Strategy, capacity: Capacity) -> None:
        self._demand = demand
        self._spread = strategy is Strategy.SPREAD
        self._looked = len(capacity.changed)
        self.candidates: dict[str, _Candidate] = {}
        self.refusals: dict[str, str] = {}
        self.summary: str | None = None
        for load in capacity.loads.values():
            self._look(load)

    def refresh(self, capacity: Capacity) -> None:
        if self._looked == len(capacity.changed):
            return
        for name in set(capacity.changed[self._looked :]):
            self._look(capacity.loads[name])
        self._looked = len(capacity.changed)
        self.summary = None

    def _look(self, load: Load) -> None:
        name = load.node.name
        found = _consider(self._demand, load, self._spread)
        if isinstance(found, str):
            self.refusals[name] = found
            self.candidates.pop(name, None)
        else:
            self.candidates[name] = found
            self.refusals.pop(name, None)


def _survey(demand: Demand, capacity: Capacity, strategy: Strategy) -> _Survey:
    key = (demand, strategy)
    survey = capacity.surveys.get(key)
    if survey is None:
        if len(capacity.surveys) >= MAX_SURVEYS:
            capacity.surveys.pop(next(iter(capacity.surveys)))
        survey = capacity.surveys[key] = _Survey(demand, strategy, capacity)
    else:
        survey.refresh(capacity)
    found: _Survey = survey
    return found


def _consider(demand: Demand, load: Load, spread: bool) -> _Candidate | str:
    node = load.node
    if load.closed:
        return load.closed
    if demand.volumes:
        refusal = _refuse_volumes(demand, node)
        if refusal:
            return refusal
    if demand.cpus or demand.memory_bytes or demand.custom:
        refusal = _refuse_declared(demand, load)
        if refusal:
            return refusal
    fullness = round(load.fullness, 6)
    if demand.gpus:
        return _consider_gpus(demand, load, fullness, spread)
    if load.slots_used >= node.slots:
        return "it has no CPU slots" if node.slots == 0 else f"all {node.slots} slots are taken"
    return (0.0, fullness if spread else -fullness, node.name, ())


def _refuse_volumes(demand: Demand, node: Node) -> str:
    """Why a node does not offer all volumes that are needed, as they are needed."""
    offered = dict(node.volumes)
    for name, read_only in demand.volumes:
        if name not in offered:
            return f"it does not offer the volume {name}"
        if offered[name] and not read_only:
            return f"it offers the volume {name} for reading only"
    return ""


def _refuse_declared(demand: Demand, load: Load) -> str:
    """Why what is declared of a node's CPUs, memory and custom resources does not fit."""
    node = load.node
    if demand.cpus:
        if not node.cpus:
            return "it does not say how many CPUs it has"
        if load.cpus_used + demand.cpus > node.cpus + ROUNDING:
            free = max(0.0, node.cpus - load.cpus_used)
            return f"{free:g} of its {node.cpus:g} CPUs are free, {demand.cpus:g} are needed"
    if demand.memory_bytes:
        if not node.memory_bytes:
            return "it does not say how much memory it has"
        free_bytes = node.memory_bytes - load.memory_used_bytes
        if demand.memory_bytes > free_bytes:
            return (
                f"{_gib(free_bytes)} of its memory are free, {_gib(demand.memory_bytes)} are needed"
            )
    has = dict(node.custom)
    for name, amount in demand.custom:
        if name not in has:
            return f"it has no {name}"
        free = max(0.0, has[name] - load.custom_used.get(name, 0.0))
        if amount > free + ROUNDING:
            return f"{free:g} of its {has[name]:g} {name} are free, {amount:g} are needed"
    return ""


def _consider_gpus(demand: Demand, load: Load, fullness: float, spread: bool) -> _Candidate | str:
    node, used = load.node, load.gpus_used
    qualified = _qualified_gpus(demand, node)
    if isinstance(qualified, str):
        return qualified
    wanted, fraction = demand.gpu_count, min(demand.gpus, 1.0)
    most = 1.0 - fraction + ROUNDING
    gpus = node.gpus
    roomy = [i for i in qualified if used[i] <= most and not gpus[i].fault]
    if len(roomy) < wanted:
        return _no_gpu_free(demand, [gpus[i] for i in qualified], len(roomy))
    need_bytes = demand.gpu_memory_bytes // wanted
    if need_bytes:
        fitting = [i for i in roomy if need_bytes <= load.gpu_free_bytes(i)]
        if len(fitting) < wanted:
            free, needed = _gib(max(map(load.gpu_free_bytes, roomy))), _gib(need_bytes)
            said = f"its GPUs have at most {free} of memory free, {needed} are needed"
            return _with_cordoned(said, [gpus[i] for i in qualified])
        roomy = fitting
    if fraction < 1:
        # Of those alike the first: max and min return it.
        roomy = [(min if spread else max)(roomy, key=used.__getitem__)]
    gpu_fullness = round(used[roomy[0]], 6)
    if not spread:
        gpu_fullness, fullness = -gpu_fullness, -fullness
    return (gpu_fullness, fullness, node.name, tuple(roomy[:wanted]))


def _qualified_gpus(demand: Demand, node: Node) -> Sequence[int] | str:
    """Positions of the GPUs that are of the kind that is needed, or why there are too few."""
    gpus = node.gpus
    if not gpus:
        return "it has no GPU"
    kind = demand.accelerator_type
    qualified: Sequence[int] = range(len(gpus))
    if kind:
        qualified = [i for i in qualified if is_accelerator(kind, gpus[i].product_name)]
        if not qualified:
            return f"it has no {kind}"
    if demand.gpu_count > 1:
        # CUDA sees only the first of several MIG instances (NVIDIA's MIG user guide, "Device
        # Enumeration"): two of them in one container are one.
        whole = [i for i in qualified if not gpus[i].is_mig]
        if len(whole) < len(qualified) and len(whole) < demand.gpu_count:
            return (
                f"{len(qualified) - len(whole)} of its {len(qualified)} GPUs are MIG instances, "
                f"and the {demand.gpu_count} of a replica must be whole ones"
            )
        qualified = whole
    return qualified


def _no_gpu_free(demand: Demand, gpus: Sequence[Gpu], free: int) -> str:
    """Why none, or too few, of the GPUs that qualify are free."""
    if not any(not gpu.fault for gpu in gpus):
        return _with_cordoned("", gpus)
    if demand.gpus < 1:
        return _with_cordoned(f"no GPU has {demand.gpus:g} of itself free", gpus)
    said = f"{free} of its {len(gpus)} GPUs are free, {demand.gpu_count} are needed"
    return _with_cordoned(said, gpus)


def _with_cordoned(said: str, gpus: Sequence[Gpu]) -> str:
    """A reason, and which of the GPUs are cordoned and why."""
    cordoned = [f"GPU {gpu.uuid} is cordoned: {gpu.fault}" for gpu in gpus if gpu.fault]
    more = len(cordoned) - MAX_GPUS_NAMED
    named = cordoned[:MAX_GPUS_NAMED] + ([f"{more} more are cordoned"] if more > 0 else [])
    return "; ".join([said, *named] if said else named)


def _vacated(node: Node) -> Node:
    """A node as it would be with nothing on it and nothing against it."""
    gpus = tuple(replace(gpu, memory_used_bytes=0, fault="") for gpu in node.gpus)
    return replace(node, gpus=gpus, closed="")


def _short_of(demand: Demand, nodes: list[Node]) -> str:
    """The first resource of which no node has enough; empty if it is none alone."""
    for name, read_only in demand.volumes:
        offers = [dict(node.volumes).get(name) for node in nodes]
        if False not in offers and (True not in offers or not read_only):
            how = "for writing" if True in offers else "at all"
            return f"it needs the volume {name}, which no node offers {how}"
    kind = demand.accelerator_type
    if demand.gpus:
        fitting = [
            [
                g
                for g in node.gpus
                if (not kind or is_accelerator(kind, g.product_name))
                and (demand.gpu_count == 1 or not g.is_mig)
            ]
            for node in nodes
        ]
        largest = max(len(gpus) for gpus in fitting)
        what = f"{kind} GPU" if kind else "GPU"
        if largest < demand.gpu_count:
            if not largest:
                return f"it needs {_counted(demand.gpu_count, what)}, no node has one"
            needed = _counted(demand.gpu_count, what)
            return f"it needs {needed}, the largest node has {largest}"
        need_bytes = demand.gpu_memory_bytes // demand.gpu_count
        most_bytes = max(gpu.memory_total_bytes for gpus in fitting for gpu in gpus)
        if need_bytes > most_bytes:
            return f"it needs {_gib(need_bytes)} on a {what}, the largest has {_gib(most_bytes)}"
    elif not any(node.slots for node in nodes):
        return "it needs a CPU slot, no node has one"
    most_cpus = max(node.cpus for node in nodes)
    if demand.cpus > most_cpus + ROUNDING:
        if not most_cpus:
            return f"it needs {demand.cpus:g} CPUs, no node says how many it has"
        return f"it needs {demand.cpus:g} CPUs, the largest node has {most_cpus:g}"
    most_bytes = max(node.memory_bytes for node in nodes)
    if demand.memory_bytes > most_bytes:
        needed = _gib(demand.memory_bytes)
        if not most_bytes:
            return f"it needs {needed} of memory, no node says how much it has"
        return f"it needs {needed} of memory, the largest node has {_gib(most_bytes)}"
    for name, amount in demand.custom:
        most = max(dict(node.custom).get(name, 0.0) for node in nodes)
        if amount > most + ROUNDING:
            return f"it needs {amount:g} {name}, the largest node has {most:g}"
    return ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count:,} nodes"


def _gib(size_bytes: int) -> str:
    return f"{max(0, size_bytes) / 2**30:.1f} GiB"
