"""What every node has, and what of it is held. Pure.

Built once from nodes and shares, in time that grows with their number; afterwards a share is taken
or released at a cost that depends on nothing else. A replica without GPUs holds a slot of its node.
One with a fraction of a GPU holds that much of one GPU; one with whole GPUs has each to itself.

Of a GPU's memory that is free which nobody uses and nobody is promised:

    free = total - foreign - sum over its replicas of max(declared, measured)

where foreign is what is in use and belongs to none of them. So what a replica that is still loading
has not allocated yet stays reserved for it, and one that takes more than it declared counts with
what it takes. Of a replica whose memory is not known it is assumed that it uses what it declares.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# Sums of fractions such as 0.1 miss their exact value by some 1e-16.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica needs of its node.

    Attributes:
        gpus: a whole number, or a fraction between 0 and 1; 0: a CPU slot.
        gpu_memory_bytes: over all its GPUs; 0: not declared.
        accelerator_type: a word of the GPUs' product name, whatever the case; empty: any.
        cpus: 0: not declared.
        memory_bytes: of the node; 0: not declared.
        custom: other resources, by name, in the order of their names.
        volumes: that it must see, each with whether it only reads it, in the order of their names.
    """

    gpus: float = 0.0
    gpu_memory_bytes: int = 0
    accelerator_type: str = ""
    cpus: float = 0.0
    memory_bytes: int = 0
    custom: tuple[tuple[str, float], ...] = ()
    volumes: tuple[tuple[str, bool], ...] = ()

    @property
    def gpu_count(self) -> int:
        """On how many GPUs it stands."""
        return max(1, round(self.gpus)) if self.gpus else 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node, or one MIG instance.

    Attributes:
        memory_used_bytes: by whomever, as measured.
        fault: why it is cordoned: nothing may run on it; empty if something may.
        is_mig: it is an instance of a GPU that was divided by MIG.
    """

    uuid: str
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    product_name: str = ""
    fault: str = ""
    is_mig: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node that may be a candidate.

    Attributes:
        slots: replicas without a GPU that it can run at once.
        closed: why nothing may be placed on it; empty if something may.
        cpus: that replicas may declare; 0: not known.
        memory_bytes: that replicas may declare; 0: not known.
        custom: other resources, by name.
        volumes: that it offers, each with whether it may only be read there.
    """

    name: str
    slots: int
    gpus: tuple[Gpu, ...] = ()
    closed: str = ""
    cpus: float = 0.0
    memory_bytes: int = 0
    custom: tuple[tuple[str, float], ...] = ()
    volumes: tuple[tuple[str, bool], ...] = ()


Used = tuple[int, ...] | None
"""GPU memory that a replica uses of each of its GPUs, as measured; None: not known."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a replica holds of a node, running or about to.

    Attributes:
        gpu_uuids: GPUs that it holds.
        used_bytes: memory that it uses of each of them, as measured; needed only where that is
            more than it declares.
    """

    node: str
    gpu_uuids: tuple[str, ...]
    demand: Demand
    used_bytes: Used = None


class Load:
    """What is held of one node.

    Attributes:
        node: what it has.
        closed: why nothing may be placed on it; empty if something may.
        slots_used: slots that are held.
        gpus_used: held part of each GPU, 0 to 1, in the order of `node.gpus`.
        gpu_bytes: memory of each GPU that replicas hold: as declared, or as measured if that is
            more.
        foreign_bytes: memory of each GPU that is in use and none of theirs.
        cpus_used: CPUs that are declared.
        memory_used_bytes: memory that is declared.
        custom_used: other resources that are declared.
        units_used: slots and GPUs that are held, counted alike.
    """

    __slots__ = (
        "_in_use",
        "_positions",
        "closed",
        "cpus_used",
        "custom_used",
        "foreign_bytes",
        "gpu_bytes",
        "gpus_used",
        "memory_used_bytes",
        "node",
        "slots_used",
        "units_used",
    )

    def __init__(self, node: Node) -> None:
        self.node = node
        self.closed = node.closed
        self.slots_used = 0
        self.gpus_used = [0.0] * len(node.gpus)
        self.gpu_bytes = [0] * len(node.gpus)
        self.foreign_bytes = [gpu.memory_used_bytes for gpu in node.gpus]
        self._in_use = any(self.foreign_bytes)
        self.cpus_used = 0.0
        self.memory_used_bytes = 0
        self.custom_used: dict[str, float] = {}
        self.units_used = 0.0
        self._positions = {gpu.uuid: i for i, gpu in enumerate(node.gpus)}

    def add(self, share: Share, sign: int) -> None:
        """Adds what a share holds, or with sign -1 takes it away."""
        demand = share.demand
        if demand.gpus:
            self._add_gpus(share, sign)
        else:
            self.slots_used += sign
            self.units_used = _sum(self.units_used, sign)
        if demand.cpus:
            self.cpus_used = _sum(self.cpus_used, sign * demand.cpus)
        if demand.memory_bytes:
            self.memory_used_bytes += sign * demand.memory_bytes
        for name, amount in demand.custom:
            self.custom_used[name] = _sum(self.custom_used.get(name, 0.0), sign * amount)

    def add_running(self, share: Share, used_bytes: Used) -> None:
        """Adds a share whose use is part of what was measured of the GPUs.

        Args:
            share: what a replica holds.
            used_bytes: memory that it uses of each of its GPUs; None: not known.
        """
        self.add(share, 1)
        if not share.gpu_uuids or not self._in_use:
            return
        declared = _each_bytes(share)
        for n, uuid in enumerate(share.gpu_uuids):
            i = self._positions.get(uuid)
            if i is not None:
                used = declared if used_bytes is None else used_bytes[n]
                self.foreign_bytes[i] = max(0, self.foreign_bytes[i] - used)

    def _add_gpus(self, share: Share, sign: int) -> None:
        fraction = min(share.demand.gpus, 1.0) * sign
        each_bytes, used = _each_bytes(share), share.used_bytes
        for n, uuid in enumerate(share.gpu_uuids):
            i = self._positions.get(uuid)
            # A GPU that vanished has nothing to hold.
            if i is not None:
                self.gpus_used[i] = _sum(self.gpus_used[i], fraction)
                self.gpu_bytes[i] += sign * (max(each_bytes, used[n]) if used else each_bytes)
                self.units_used = _sum(self.units_used, fraction)

    def gpu_free_bytes(self, i: int) -> int:
        """Memory of the GPU at position `i` that nobody uses and nobody is promised."""
        total = self.node.gpus[i].memory_total_bytes
        return total - self.foreign_bytes[i] - self.gpu_bytes[i]

    @property
    def empty(self) -> bool:
        """Whether nothing is held."""
        return not self.slots_used and not any(self.gpus_used)

    @property
    def fullness(self) -> float:
        """Share of the node that is held, slots and GPUs counted alike, 0 to 1."""
        units = self.node.slots + len(self.gpus_used)
        return self.units_used / units if units else 0.0

    @property
    def most_used_ratio(self) -> float:
        """Held share of the resource of which the largest share is held."""
        node = self.node
        parts: list[tuple[float, float]] = [
            (self.slots_used, node.slots),
            (sum(self.gpus_used), len(node.gpus)),
            (self.cpus_used, node.cpus),
            (self.memory_used_bytes, node.memory_bytes),
        ]
        parts += [(self.custom_used.get(name, 0.0), amount) for name, amount in node.custom]
        return max((used / has for used, has in parts if has), default=0.0)


class Capacity:
    """What all nodes have and what is held; changes within a tick.

    Attributes:
        loads: by node.
        changed: names of nodes in the order in which something of them was taken or released.
        surveys: what placement has worked out and keeps up to date by `changed`.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        shares: Iterable[Share] = (),
        running: Iterable[tuple[Share, Used]] = (),
    ) -> None:
        """Starts from what is held.

        Args:
            nodes: all that are known.
            shares: what is held by replicas of whose GPU memory nothing is known. Those on nodes
                that are not known are left out, here and below.
            running: what is held by others, and the memory they use. Those count, too, that are
                still leaving.
        """
        self.loads = {node.name: Load(node) for node in nodes}
        self.changed: list[str] = []
        self.surveys: dict[Any, Any] = {}
        loads = self.loads
        for share in shares:
            load = loads.get(share.node)
            if load is not None:
                load.add_running(share, share.used_bytes)
        for share, used_bytes in running:
            load = loads.get(share.node)
            if load is not None:
                load.add_running(share, used_bytes)

    def take(self, share: Share) -> None:
        """Holds a share. It is the caller's to know that it fits."""
        self._change(share, 1)

    def release(self, share: Share) -> None:
        """Gives back a share that is held."""
        self._change(share, -1)

    def close(self, node: str, why: str) -> None:
        """Places nothing more on a node; one that is closed already keeps its reason."""
        load = self.loads.get(node)
        if load is not None and not load.closed:
            load.closed = why
            self.changed.append(node)

    def reopen(self, node: str) -> None:
        """Undoes `close`."""
        load = self.loads.get(node)
        if load is not None and load.closed != load.node.closed:
            load.closed = load.node.closed
            self.changed.append(node)

    def fullness(self, node: str) -> float:
        """Share of a node that is held, 0 to 1; 0 for one that is not known."""
        load = self.loads.get(node)
        return load.fullness if load is not None else 0.0

    def _change(self, share: Share, sign: int) -> None:
        load = self.loads.get(share.node)
        if load is not None:
            load.add(share, sign)
            self.changed.append(share.node)


@lru_cache(maxsize=4096)
def is_accelerator(accelerator_type: str, product_name: str) -> bool:
    """Whether a product name has the accelerator type as a word, whatever the case.

    `L4` is in `NVIDIA L4` and not in `NVIDIA L40S`; `a100` is in `NVIDIA A100-SXM4-80GB`.
    """
    word = re.escape(accelerator_type.strip().lower())
    return re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", product_name.lower()) is not None


def _each_bytes(share: Share) -> int:
    """GPU memory that is declared on each of the GPUs."""
    return share.demand.gpu_memory_bytes // max(1, len(share.gpu_uuids))


def _sum(before: float, change: float) -> float:
    after = before + change
    # Otherwise what was taken and released would leave dust that makes an empty node look used.
    return 0.0 if abs(after) < ROUNDING else after
