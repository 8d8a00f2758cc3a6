"""Where a replica goes: filter, score, pick. Pure.

A replica without GPUs takes a slot of its node. One with a fraction of a GPU shares one GPU and
never straddles two; one with whole GPUs has them to itself, all on one node. Compact: the fullest
GPU that fits, then the fullest node, so that whole nodes become idle and can be released. Every
refusal of a node has its sentence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Sums of fractions such as 0.1 miss their exact value by some 1e-16.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica needs."""

    gpus: float = 0.0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node."""

    uuid: str
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A node that may be a candidate.

    Attributes:
        closed: why nothing may be placed on it; empty if something may.
    """

    name: str
    slots: int
    gpus: tuple[Gpu, ...] = ()
    closed: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """What a replica holds of a node, running or about to."""

    node: str
    gpu_uuids: tuple[str, ...]
    demand: Demand


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


@dataclass(frozen=True, slots=True)
class _Candidate:
    place: Place
    gpu_fullness: float
    node_fullness: float


def place(
    demand: Demand, nodes: Iterable[Node], shares: Iterable[Share]
) -> Place | tuple[Refusal, ...]:
    """A place for one more replica, or each node's reason not to take it.

    Args:
        demand: what the replica needs.
        nodes: all nodes.
        shares: all that is held, by replicas that are still leaving too.
    """
    held: dict[str, list[Share]] = {}
    for share in shares:
        held.setdefault(share.node, []).append(share)
    candidates: list[_Candidate] = []
    refusals: list[Refusal] = []
    for node in nodes:
        found = _consider(demand, node, held.get(node.name, []))
        if isinstance(found, str):
            refusals.append(Refusal(node.name, found))
        else:
            candidates.append(found)
    if not candidates:
        return tuple(sorted(refusals, key=lambda refusal: refusal.node))
    fullest_first = sorted(
        candidates, key=lambda c: (-c.gpu_fullness, -c.node_fullness, c.place.node)
    )
    return fullest_first[0].place


def _consider(demand: Demand, node: Node, shares: list[Share]) -> _Candidate | str:
    if node.closed:
        return node.closed
    if demand.gpus == 0:
        return _consider_slots(node, shares)
    if not node.gpus:
        return "it has no GPU"
    return _consider_gpus(demand, node, shares)


def _consider_slots(node: Node, shares: list[Share]) -> _Candidate | str:
    used = sum(1 for share in shares if share.demand.gpus == 0)
    if used >= node.slots:
        return "it has no CPU slots" if node.slots == 0 else f"all {node.slots} slots are taken"
    return _Candidate(Place(node.name), 0.0, used / node.slots)


def _consider_gpus(demand: Demand, node: Node, shares: list[Share]) -> _Candidate | str:
    wanted = max(1, round(demand.gpus))
    fraction = min(demand.gpus, 1.0)
    used = {gpu.uuid: _used(gpu.uuid, shares) for gpu in node.gpus}
    roomy = [gpu for gpu in node.gpus if used[gpu.uuid] + fraction <= 1 + _ROUNDING]
    if len(roomy) < wanted:
        if fraction < 1:
            return f"no GPU has {demand.gpus:g} of itself free"
        return f"{len(roomy)} of its {len(node.gpus)} GPUs are free, {wanted} are needed"
    need_bytes = demand.gpu_memory_bytes // wanted
    fitting = [gpu for gpu in roomy if not need_bytes or need_bytes <= _free_bytes(gpu, shares)]
    if len(fitting) < wanted:
        most_bytes = max(_free_bytes(gpu, shares) for gpu in roomy)
        free, needed = _gib(most_bytes), _gib(need_bytes)
        return f"its GPUs have at most {free} of memory free, {needed} are needed"
    chosen = sorted(fitting, key=lambda gpu: (-used[gpu.uuid], gpu.uuid))[:wanted]
    return _Candidate(
        Place(node.name, tuple(gpu.uuid for gpu in chosen)),
        used[chosen[0].uuid],
        sum(used.values()) / len(node.gpus),
    )


def _used(uuid: str, shares: list[Share]) -> float:
    return sum(min(share.demand.gpus, 1.0) for share in shares if uuid in share.gpu_uuids)


def _free_bytes(gpu: Gpu, shares: list[Share]) -> int:
    declared = sum(
        share.demand.gpu_memory_bytes // len(share.gpu_uuids)
        for share in shares
        if gpu.uuid in share.gpu_uuids
    )
    # A replica still loading is not measured yet; one that takes more than it declared is.
    return gpu.memory_total_bytes - max(declared, gpu.memory_used_bytes)


def _gib(size_bytes: int) -> str:
    return f"{max(0, size_bytes) / 2**30:.1f} GiB"
