"""GPUs that several nodes report, as two agents on one machine do. Pure.

The autoscaler uses such a GPU through one node only, and the command line says which.
"""

from collections.abc import Collection, Iterable, Mapping


def shared_by(nodes: Iterable[tuple[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Ids of the nodes that report a GPU, by name, for each GPU that more than one of them does.

    Args:
        nodes: id and GPU UUIDs of each node.
    """
    first: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for node, uuids in nodes:
        for uuid in uuids:
            if first.setdefault(uuid, node) is not node and first[uuid] != node:
                found.setdefault(uuid, {first[uuid]}).add(node)
    return {uuid: sorted(names) for uuid, names in found.items()}


def through(names: Collection[str], held: Mapping[str, float], away: Collection[str]) -> str:
    """Through which of several nodes a GPU that they all report is used.

    The one that holds most of it, so that what runs goes on; among equals one that reports, and
    then the first by name.

    Args:
        names: ids of the nodes.
        held: how much of the GPU replicas hold through each.
        away: ids of nodes that do not report.
    """
    return min(names, key=lambda name: (-held.get(name, 0), name in away, name))
