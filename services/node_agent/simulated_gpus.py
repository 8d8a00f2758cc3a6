"""Pure: GPUs that a node makes up, to try out placement and scaling without having any.

Their replicas are real Tritons on the CPU. They are told apart everywhere: by `simulated`, by a
UUID that no NVML gives, and by the word in their product's name.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.v1.node_pb2 import Gpu

_PREFIX = "SIM-"
_WORD = "Simulated"


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a node makes up.

    Attributes:
        node: id of the node.
        count: how many GPUs, 0 to 16.
        memory_bytes: of each.
        product: name of what they pretend to be, such as `L4`.
    """

    node: str
    count: int
    memory_bytes: int
    product: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What one replica holds of GPUs.

    Attributes:
        gpu_uuids: the GPUs.
        gpus: how many it declares; below 1 a share of one.
        memory_bytes: GPU memory it declares, over all its GPUs.
        ongoing_count: requests inside its Triton now.
    """

    gpu_uuids: tuple[str, ...]
    gpus: float
    memory_bytes: int
    ongoing_count: int


def is_simulated(uuid: str) -> bool:
    """Whether a GPU with this UUID was made up."""
    return uuid.startswith(_PREFIX)


def message(simulation: Simulation) -> str:
    """Says to people what these GPUs are."""
    what = "1 GPU is" if simulation.count == 1 else f"{simulation.count} GPUs are"
    return f"{what} simulated: replicas run on the CPU"


def offer(simulation: Simulation, holdings: Iterable[Holding]) -> tuple[Gpu, ...]:
    """The GPUs with their load.

    Memory in use is what the replicas on a GPU declare, at most all of it. Its utilisation is the
    share of it that belongs to replicas with a request inside, at most 1.
    """
    used_bytes: dict[str, int] = {}
    busy: dict[str, float] = {}
    for holding in holdings:
        for uuid in holding.gpu_uuids:
            part = holding.memory_bytes // len(holding.gpu_uuids)
            used_bytes[uuid] = used_bytes.get(uuid, 0) + part
            share = min(holding.gpus, 1.0) if holding.ongoing_count else 0.0
            busy[uuid] = busy.get(uuid, 0.0) + share
    product = simulation.product
    if _WORD.lower() not in product.lower():
        product = f"{_WORD} {product}"
    return tuple(
        Gpu(
            uuid=uuid,
            product_name=product,
            memory_total_bytes=simulation.memory_bytes,
            memory_used_bytes=min(used_bytes.get(uuid, 0), simulation.memory_bytes),
            utilization_ratio=min(busy.get(uuid, 0.0), 1.0),
            simulated=True,
            health=Gpu.HEALTH_OK,
        )
        for uuid in (f"{_PREFIX}{simulation.node}-{i}" for i in range(simulation.count))
    )
