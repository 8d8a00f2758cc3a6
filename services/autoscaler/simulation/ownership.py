"""Who owns which share of a simulated node. Pure."""

from collections.abc import Iterable

from services.autoscaler.capacity import ROUNDING
from services.autoscaler.simulation.sim_node import SimNode


class InvariantError(Exception):
    """The simulated mesh did what it must never do; the text says what, where and when."""


def check_owners(node: SimNode, now_s: float, nodes: Iterable[SimNode] = ()) -> None:
    """Checks I7: no share of a node has two owners.

    Args:
        node: the node.
        now_s: the instant.
        nodes: all nodes: others that report a GPU of this one are other agents on its machine.

    Raises:
        InvariantError: if one has.
    """
    for other in nodes:
        if other is not node and not other.uuids.isdisjoint(node.uuids):
            _check_shared(node, other, now_s)
    gpus: dict[str, float] = {}
    slots = 0
    for replica in node.replicas.values():
        demand = replica.share.demand
        slots += not demand.gpus
        for uuid in replica.share.gpu_uuids:
            gpus[uuid] = gpus.get(uuid, 0.0) + min(demand.gpus, 1.0)
    for what, used, has in [
        ("slots", slots, node.node.slots),
        *((g, u, 1) for g, u in gpus.items()),
    ]:
        if used > has + ROUNDING:
            raise InvariantError(
                f"I7: {used:g} of {has} {what} of node {node.name} are held at {now_s:g} s by "
                f"{', '.join(sorted(node.replicas))}"
            )


def _check_shared(node: SimNode, other: SimNode, now_s: float) -> None:
    mine, theirs = (
        {u for r in n.replicas.values() for u in r.share.gpu_uuids} for n in (node, other)
    )
    both = sorted(mine & theirs)
    if both:
        raise InvariantError(
            f"I7: GPU {both[0]} is used through node {node.name} and node {other.name} at "
            f"{now_s:g} s"
        )


def check_empty(node: SimNode, now_s: float) -> None:
    """Checks I1: a node that is released runs nothing.

    Raises:
        InvariantError: if it does.
    """
    if node.replicas:
        raise InvariantError(
            f"I1: node {node.name} was released at {now_s:g} s with "
            f"{', '.join(sorted(node.replicas))} on it"
        )
