"""Which GPUs nothing may run on, and which replicas must leave them at once. Pure.

A GPU is cordoned while its node says that it is faulty or lost, and where two nodes report the same
one, as two agents on one machine do: it is used through one of them only. What runs on a cordoned
GPU cannot be relied on to serve, so its replicas are given up and made good elsewhere at once,
whatever rollout or delay is going on. They do not wait for their successors: a replica that fails
whatever it takes would empty the queue of its deployment meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.autoscaler.capacity import Node, Share
from services.autoscaler.roster import Roster
from services.autoscaler.view import Presence, State, View
from services.wire.shared_gpus import shared_by, through

_MOST = 1 << 20
"""What an assigned replica weighs, against one that is leaving: more than there can be of these."""


def nodes_of(view: View, roster: Roster, apart: Iterable[tuple[str, Share]]) -> tuple[Node, ...]:
    """The nodes that are seen, with every GPU that two of them report cordoned on all but one.

    Args:
        view: what is seen.
        roster: what is assigned.
        apart: deployment and share of what runs and is not assigned any more.
    """
    shared = shared_by((node.name, [gpu.uuid for gpu in node.gpus]) for node in view.nodes)
    if not shared:
        return view.nodes
    held = _held(shared, roster, apart)
    offline = {n for n, a in view.attendance.items() if a.presence is Presence.OFFLINE}
    faults: dict[str, dict[str, str]] = {}
    for uuid, names in shared.items():
        owner = through(names, held.get(uuid, {}), offline)
        for name in names:
            if name != owner:
                said = f"nodes {_listed(names)} report the same GPU, it is used through {owner}"
                faults.setdefault(name, {})[uuid] = said
    return tuple(_cordoned(node, faults.get(node.name, {})) for node in view.nodes)


def faults_of(nodes: Iterable[Node]) -> dict[tuple[str, str], str]:
    """Why each cordoned GPU is, by node and UUID."""
    return {(node.name, gpu.uuid): gpu.fault for node in nodes for gpu in node.gpus if gpu.fault}


def stranded(
    faults: Mapping[tuple[str, str], str], nodes: Iterable[Node], roster: Roster, view: View
) -> dict[str, str]:
    """Replicas that must leave their GPUs, each with the reason.

    Args:
        faults: as `faults_of` gives them.
        nodes: all that are known.
        roster: what is assigned.
        view: what is seen.
    """
    found: dict[str, str] = {}
    for name in sorted({node for node, _ in faults}):
        for replica_id, assigned in roster.on(name).items():
            why = why_stranded(faults, assigned.share)
            if why:
                found[replica_id] = why
    return found | _without_gpu(nodes, roster, view)


def why_stranded(faults: Mapping[tuple[str, str], str], share: Share) -> str:
    """Why a replica must leave its GPUs; empty if it need not."""
    for uuid in share.gpu_uuids:
        fault = faults.get((share.node, uuid))
        if fault:
            return f"GPU {uuid} of node {share.node} is cordoned: {fault}"
    return ""


def _without_gpu(nodes: Iterable[Node], roster: Roster, view: View) -> dict[str, str]:
    """Replicas that failed and whose GPU is not there: an agent that was started anew never knew
    a GPU that was lost before, so it does not call it lost."""
    failed = [
        (replica_id, roster.by_id[replica_id].share)
        for replica_id, seen in view.replicas.items()
        if seen.state is State.FAILED and replica_id in roster.by_id
    ]
    if not failed:
        return {}
    there = {node.name: {gpu.uuid for gpu in node.gpus} for node in nodes}
    found: dict[str, str] = {}
    for replica_id, share in failed:
        missing = sorted(set(share.gpu_uuids) - there.get(share.node, set()))
        if missing and share.node in there:
            found[replica_id] = f"node {share.node} has no GPU {missing[0]} any more"
    return found


def _held(
    shared: Mapping[str, object], roster: Roster, apart: Iterable[tuple[str, Share]]
) -> dict[str, Counter[str]]:
    """How much of each shared GPU is held through each node; what is assigned counts most."""
    held: dict[str, Counter[str]] = {uuid: Counter() for uuid in shared}
    weighed = [(_MOST, assigned.share) for assigned in roster.by_id.values()]
    weighed += [(1, share) for _, share in apart]
    for weight, share in weighed:
        for uuid in share.gpu_uuids:
            if uuid in held:
                held[uuid][share.node] += weight
    return held


def _cordoned(node: Node, faults: Mapping[str, str]) -> Node:
    if not faults:
        return node
    gpus = tuple(replace(gpu, fault=gpu.fault or faults.get(gpu.uuid, "")) for gpu in node.gpus)
    return replace(node, gpus=gpus)


def _listed(names: Iterable[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first)} and {last}"
