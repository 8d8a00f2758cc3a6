"""The GPUs of this node: by NVML where there are any, or simulated where that was asked for.

No NVML is a state, not an error: the node then offers its CPU slots and says why it has no GPUs.
NVML calls block, so they run in a thread; the library is loaded once.
"""

import asyncio
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from forebay.v1.node_pb2 import Gpu
from services.node_agent import simulated_gpus
from services.node_agent.simulated_gpus import Holding, Simulation

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found.

    Attributes:
        gpus: every GPU with its load.
        message: why there are none, or what is wrong; empty if all is well.
    """

    gpus: tuple[Gpu, ...] = ()
    message: str = ""


@dataclass(slots=True)
class GpuInventory:
    """Reads the GPUs of this machine, or makes up those of a simulation."""

    simulation: Simulation | None = None
    _usable: bool = field(default=False)
    _message: str = field(default="GPUs have not been looked for yet")

    async def open(self) -> None:
        """Loads NVML, if it is there and needed."""
        if self.simulation is not None:
            self._message = simulated_gpus.message(self.simulation)
        else:
            await asyncio.to_thread(self._open)
        log.info("inventory.gpus", usable=self._usable, message=self._message)

    async def read(self, holdings: Iterable[Holding] = ()) -> Inventory:
        """The GPUs now.

        Args:
            holdings: what the replicas hold, which is the load of simulated GPUs.
        """
        if self.simulation is not None:
            return Inventory(simulated_gpus.offer(self.simulation, holdings), self._message)
        if not self._usable:
            return Inventory(message=self._message)
        return await asyncio.to_thread(self._read)

    def _open(self) -> None:
        try:
            with warnings.catch_warnings():
                # The package pynvml only brings nvidia-ml-py, which warns about the name.
                warnings.simplefilter("ignore", FutureWarning)
                import pynvml
        except ImportError:
            self._message = "pynvml is not installed, so GPUs are not looked for"
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._message = f"no GPUs: NVML says {error}"
            return
        self._usable, self._message = True, ""

    def _read(self) -> Inventory:
        import pynvml

        gpus: list[Gpu] = []
        problems: list[str] = []
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            return Inventory(message=f"NVML does not count the GPUs: {error}")
        for index in range(count):
            try:
                gpus.append(_read_gpu(index))
            except pynvml.NVMLError as error:
                problems.append(f"GPU {index}: {error}")
        return Inventory(tuple(gpus), "; ".join(problems))


def _read_gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        product_name=pynvml.nvmlDeviceGetName(handle),
        memory_total_bytes=memory.total,
        memory_used_bytes=memory.used,
        # NVML gives percent.
        utilization_ratio=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
    )
