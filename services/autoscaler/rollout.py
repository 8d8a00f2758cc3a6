"""Which replicas a deployment should have next. Pure: one step at a time, from what is seen.

Called again after every change, the steps lead from any state to the wanted one:

- what stands on a node that is gone, or on a GPU that is cordoned, is given up, and made good
  elsewhere;
- replicas of an old generation, and those on a node that is being emptied, are replaced one by one:
  one new one above the target, and for each new one that is READY an old one goes. If there is no
  room for that one, one of an old generation goes first, but only while every new one is READY and
  none is still leaving, so that a new generation that fails does not take the old one down. To
  empty a node nothing goes first: that would fall below the target for mere tidiness;
- what is missing is placed, what is too much goes: FAILED first, then what is not READY, then idle
  ones, then those that are protected, because they are starting for the first time and had no
  chance yet, and busy ones last. Among these the oldest generation goes first, then the fewest
  ongoing requests, then, of a deployment that spreads, the node with the most of its replicas, then
  the emptiest node. The only READY one stays while another can go.

A FAILED replica counts as there: one that cannot start is neither multiplied nor in the way of
having fewer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from services.autoscaler.capacity import Capacity, Demand, Share
from services.autoscaler.placement import Strategy, pick
from services.autoscaler.view import State

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Spec:
    """What a deployment declares of each of its replicas.

    Attributes:
        deployment: its id.
        generation: that its replicas should run.
        demand: what one replica needs.
        strategy: where its replicas go.
        request_timeout_s: the longest an attempt may run; reaches running replicas.
    """

    deployment: str
    generation: int
    demand: Demand = Demand()  # noqa: RUF009, it is frozen
    strategy: Strategy = Strategy.COMPACT
    request_timeout_s: float = 0.0


@dataclass(slots=True)
class Replica:
    """A replica that is assigned. To be left as it is: see ReplicaView.

    Attributes:
        ongoing_count: requests it works on, as last reported.
        protected: it is starting for the first time and within its time.
        request_timeout_s: that it was told.
    """

    replica_id: str
    generation: int
    share: Share
    state: State = State.UNKNOWN
    ongoing_count: int = 0
    protected: bool = False
    request_timeout_s: float = 0.0

    @property
    def node(self) -> str:
        """Id of its node."""
        return self.share.node


@dataclass(slots=True)
class Step:
    """What changes now. To be left as it is: see ReplicaView.

    Attributes:
        target: how many replicas are wanted.
        keep: replicas that stay.
        remove: replicas that go, each with the reason.
        create: replicas to assign.
        unplaced: how many have no place.
        short: how many of them lack a machine: below the target, and more than what is leaving will
            make room for.
        deferred: how many wait for the next look, which has time for them.
        why: why the unplaced have no place; empty if none is unplaced.
        never: why no node that is known could ever take one; empty if one could.
    """

    target: int
    keep: tuple[Replica, ...]
    remove: tuple[tuple[Replica, str], ...] = ()
    create: tuple[Replica, ...] = ()
    unplaced: int = 0
    short: int = 0
    deferred: int = 0
    why: str = ""
    never: str = ""


@dataclass(slots=True)
class Draft:
    """A step before its replicas are placed.

    Attributes:
        missing: how many replicas to place.
    """

    keep: list[Replica]
    remove: list[tuple[Replica, str]]
    missing: int


def draft(
    spec: Spec,
    target: int,
    replicas: Sequence[Replica],
    capacity: Capacity,
    gone: frozenset[str],
    evacuating: frozenset[str],
    stranded: Mapping[str, str] = _NONE,
) -> Draft:
    """What goes, what stays and how many are missing.

    Args:
        spec: what is declared.
        target: how many replicas are wanted; 0 if the deployment was deleted.
        replicas: those assigned now.
        capacity: what all nodes have and what is held, these replicas included.
        gone: ids of nodes that have been absent for too long or are leaving.
        evacuating: ids of nodes that are being emptied.
        stranded: why replicas must leave their GPUs, by replica id.
    """
    remove = [(r, f"node {r.node} is gone") for r in replicas if r.node in gone]
    kept = [r for r in replicas if r.node not in gone]
    if stranded:
        ids = stranded.keys()
        remove += [(r, stranded[r.replica_id]) for r in kept if r.replica_id in ids]
        kept = [r for r in kept if r.replica_id not in ids]
    current, old = _parted(spec, kept, evacuating)
    remove += _surplus(spec, target, current, old, capacity)
    removed = {replica.replica_id for replica, _ in remove}
    kept = [r for r in kept if r.replica_id not in removed]
    current, old = _parted(spec, kept, evacuating)
    surge = 1 if old else 0
    missing = max(0, min(target - len(current), target + surge - len(kept)))
    return Draft(kept, remove, missing)


def make_room(
    spec: Spec, replicas: Sequence[Replica], capacity: Capacity
) -> list[tuple[Replica, str]]:
    """The fewest old replicas whose going makes room for a new one; none if that cannot be.

    Args:
        spec: what is declared.
        replicas: those of the deployment that stay.
        capacity: what there is; as it was when this returns, for what goes holds its share still.
    """
    current = [r for r in replicas if r.generation == spec.generation]
    old = [r for r in replicas if r.generation != spec.generation]
    if any(r.state is not State.READY for r in current):
        return []
    victims: list[Replica] = []
    found = False
    for victim in _victims(old, capacity, spec.strategy):
        victims.append(victim)
        capacity.release(victim.share)
        found = pick(spec.demand, capacity, spec.strategy) is not None
        if found:
            break
    for victim in victims:
        capacity.take(victim.share)
    reason = f"makes room for generation {spec.generation}"
    return [(victim, reason) for victim in victims] if found else []


def _parted(
    spec: Spec, replicas: Sequence[Replica], evacuating: frozenset[str]
) -> tuple[list[Replica], list[Replica]]:
    """Those that may stay, and those that are to be replaced."""
    current: list[Replica] = []
    old: list[Replica] = []
    for r in replicas:
        stays = r.generation == spec.generation and r.node not in evacuating
        (current if stays else old).append(r)
    return current, old


def _surplus(
    spec: Spec, target: int, current: list[Replica], old: list[Replica], capacity: Capacity
) -> list[tuple[Replica, str]]:
    """Replicas that are too many, each with the reason."""
    ready = sum(1 for r in current if r.state is State.READY)
    too_many = _take(current, len(current) - target, target, capacity, spec.strategy)
    # A failed replica of an old generation serves nobody and holds a share.
    failed = [r for r in old if r.state is State.FAILED]
    serving = [r for r in old if r.state is not State.FAILED]
    needed = max(0, target - min(ready, target))
    replaced = _take(serving, len(serving) - needed, needed, capacity, spec.strategy)
    return [
        *((r, f"{target} replicas are wanted") for r in too_many),
        *((r, _why_replaced(spec, target, r)) for r in (*failed, *replaced)),
    ]


def _why_replaced(spec: Spec, target: int, replica: Replica) -> str:
    if not target:
        return "none are wanted"
    if replica.generation != spec.generation:
        return f"generation {spec.generation} replaces it"
    return f"node {replica.node} is being emptied"


def _take(
    replicas: list[Replica], count: int, stay: int, capacity: Capacity, strategy: Strategy
) -> list[Replica]:
    """Those `count` to take so that `stay` are left."""
    if count <= 0:
        return []
    ordered = _victims(replicas, capacity, strategy)
    taken, left = ordered[:count], ordered[count:]
    if stay and not any(r.state is State.READY for r in left):
        ready = [r for r in taken if r.state is State.READY]
        if ready:
            # Otherwise nothing would serve until a starting one is ready.
            taken.remove(ready[-1])
            taken.append(left[0])
    return taken


def _victims(replicas: list[Replica], capacity: Capacity, strategy: Strategy) -> list[Replica]:
    """All of them, in the order in which they would be taken."""
    in_order = sorted(
        replicas,
        key=lambda r: (
            _rank(r),
            r.generation,
            r.ongoing_count,
            capacity.fullness(r.node),
            r.replica_id,
        ),
    )
    if strategy is Strategy.COMPACT:
        return in_order
    # The last one on each node counts 1, the one before it 2: the node with the most comes first.
    number: dict[str, int] = {}
    depth: dict[str, int] = {}
    for replica in reversed(in_order):
        number[replica.node] = depth[replica.replica_id] = number.get(replica.node, 0) + 1
    return sorted(
        in_order,
        key=lambda r: (_rank(r), r.generation, r.ongoing_count, -depth[r.replica_id]),
    )


def _rank(replica: Replica) -> int:
    """Who goes first: 0 before 4."""
    if replica.state in (State.FAILED, State.STOPPED):
        return 0
    if replica.state is not State.READY:
        return 3 if replica.protected else 1
    return 4 if replica.ongoing_count else 2
