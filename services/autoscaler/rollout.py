"""Which replicas a deployment should have next. Pure: one step at a time, from what is seen.

Called again after every change, the steps lead from any state to the wanted one:

- what stands on a node that is gone is given up, and made good elsewhere;
- replicas of an old generation are replaced one by one: one new one above the wanted count, and
  for each new one that is READY an old one goes. If there is no room for that one, an old one goes
  first, but only while every new one is READY and none is still leaving, so that a new generation
  that fails does not take the old one down;
- what is missing is placed, what is too much goes: not READY first, then old, then on the emptiest
  node.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from services.autoscaler.placement import Demand, Node, Place, Refusal, Share, place


class State(Enum):
    """How a replica is, as far as it is known."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a deployment asks for."""

    deployment: str
    replicas: int
    generation: int
    demand: Demand


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that is assigned."""

    replica_id: str
    generation: int
    share: Share
    state: State = State.UNKNOWN

    @property
    def node(self) -> str:
        """Id of its node."""
        return self.share.node


@dataclass(frozen=True, slots=True)
class Step:
    """What changes now.

    Attributes:
        keep: replicas that stay.
        remove: replicas that go, each with the reason.
        create: replicas to assign.
        refusals: why no more could be placed; empty if nothing is missing a place.
        unplaced: how many have no place.
    """

    keep: tuple[Replica, ...]
    remove: tuple[tuple[Replica, str], ...]
    create: tuple[Replica, ...]
    refusals: tuple[Refusal, ...] = ()
    unplaced: int = 0


def step(
    wanted: Wanted,
    replicas: Sequence[Replica],
    nodes: Sequence[Node],
    gone: frozenset[str],
    others: Sequence[Share],
    leaving: bool,
    new_id: Callable[[], str],
) -> Step:
    """The next step for one deployment.

    Args:
        wanted: what it asks for; 0 replicas if it was deleted.
        replicas: those assigned now.
        nodes: all nodes that are known.
        gone: ids of nodes that have been absent for too long or are leaving.
        others: what is held by everything else: other deployments, and replicas that are not
            assigned any more and have not stopped yet.
        leaving: whether some of the others are replicas of this deployment.
        new_id: makes a replica id.
    """
    remove = [(r, f"node {r.node} is gone") for r in replicas if r.node in gone]
    kept = [r for r in replicas if r.node not in gone]
    remove += _surplus(wanted, kept, _fullness(nodes, [*others, *(r.share for r in kept)]))
    removed = {replica.replica_id for replica, _ in remove}
    kept = [r for r in kept if r.replica_id not in removed]

    # What goes now holds its share until it has stopped.
    shares = [
        *others,
        *(r.share for r in kept),
        *(r.share for r, _ in remove if r.node not in gone),
    ]
    current = [r for r in kept if r.generation == wanted.generation]
    old = [r for r in kept if r.generation != wanted.generation]
    surge = 1 if old else 0
    missing = max(0, min(wanted.replicas - len(current), wanted.replicas + surge - len(kept)))
    create, refusals = _create(wanted, missing, nodes, shares, new_id)
    unplaced = missing - len(create)
    ready = all(r.state is State.READY for r in current)
    if unplaced and ready and not (create or remove or leaving):
        victims = _make_room(wanted, old, nodes, shares)
        remove += [(r, f"makes room for generation {wanted.generation}") for r in victims]
        kept = [r for r in kept if r not in victims]
    return Step(tuple(kept), tuple(remove), tuple(create), refusals, unplaced)


def _surplus(
    wanted: Wanted, replicas: list[Replica], fullness: dict[str, float]
) -> list[tuple[Replica, str]]:
    """Replicas that are too many, each with the reason."""
    current = [r for r in replicas if r.generation == wanted.generation]
    old = [r for r in replicas if r.generation != wanted.generation]
    ready = sum(1 for r in current if r.state is State.READY)
    too_many = _victims(current, fullness)[: max(0, len(current) - wanted.replicas)]
    # A failed replica of an old generation serves nobody and holds a share.
    failed = [r for r in old if r.state is State.FAILED]
    serving = [r for r in old if r.state is not State.FAILED]
    needed = max(0, wanted.replicas - min(ready, wanted.replicas))
    replaced = _victims(serving, fullness)[: max(0, len(serving) - needed)]
    why = f"generation {wanted.generation} replaces it" if wanted.replicas else "none are wanted"
    return [
        *((r, f"{wanted.replicas} replicas are wanted") for r in too_many),
        *((r, why) for r in (*failed, *replaced)),
    ]


def _victims(replicas: Iterable[Replica], fullness: dict[str, float]) -> list[Replica]:
    """Those to take first: not READY, then of the oldest generation, then on the emptiest node."""
    return sorted(
        replicas,
        key=lambda r: (
            r.state is State.READY,
            r.state is not State.FAILED,
            r.generation,
            fullness.get(r.node, 0.0),
            r.replica_id,
        ),
    )


def _create(
    wanted: Wanted,
    count: int,
    nodes: Sequence[Node],
    shares: list[Share],
    new_id: Callable[[], str],
) -> tuple[list[Replica], tuple[Refusal, ...]]:
    created: list[Replica] = []
    while len(created) < count:
        found = place(wanted.demand, nodes, [*shares, *(r.share for r in created)])
        if not isinstance(found, Place):
            return created, found
        share = Share(found.node, found.gpu_uuids, wanted.demand)
        created.append(Replica(new_id(), wanted.generation, share))
    return created, ()


def _make_room(
    wanted: Wanted, old: list[Replica], nodes: Sequence[Node], shares: list[Share]
) -> list[Replica]:
    """The fewest old replicas whose going makes room for a new one; none if that cannot be."""
    left = list(shares)
    victims: list[Replica] = []
    for victim in _victims(old, _fullness(nodes, shares)):
        victims.append(victim)
        left.remove(victim.share)
        if isinstance(place(wanted.demand, nodes, left), Place):
            return victims
    return []


def _fullness(nodes: Iterable[Node], shares: list[Share]) -> dict[str, float]:
    """Share of each node that is held, slots and GPUs counted alike."""
    return {
        node.name: sum(max(1.0, s.demand.gpus) for s in shares if s.node == node.name)
        / max(1, node.slots + len(node.gpus))
        for node in nodes
    }
