"""Asks NVML, by its own Python binding. Every call here may block: see nvml_thread.

A query that a card does not support, or that is not allowed, leaves its figure unknown, and so does
an answer that cannot be true, as cards that are about to fail give: metrics would refuse the report
of the whole node. Only a card whose UUID cannot be read is left out.
"""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import structlog

from services.node_agent.gpus.reading import Card, Figures, Needs, ProcessUse, Reading

log = structlog.get_logger()

MAX_PROBLEMS = 8
MAX_PROBLEM_CHARACTERS = 200
MAX_INSTANCES = 64
MAX_PROCESSES = 4096
MAX_CELSIUS = 200
MAX_WATTS = 10_000
MAX_COUNT = 1 << 40
MAX_MEMORY_BYTES = 1 << 50
MAX_PROCESS_ID = 2**31 - 1
_PERCENT = 100
_MILLI = 1000
_CORRECTED, _UNCORRECTED, _SINCE_LOAD = 0, 1, 0
_WHOLE = 0xFFFFFFFF
_UPDATED = (
    ". The driver was updated: restart the machine, or load the driver and start the agent anew"
)


class DriverGoneError(Exception):
    """The driver is not loaded any more; the text is NVML's."""


class _CardLostError(Exception):
    """The card does not answer any more."""


class NvmlMissingError(Exception):
    """There is no NVML to ask; the text says why, for a person.

    Attributes:
        for_good: whether looking again is of no use.
    """

    def __init__(self, message: str, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Nvml:
    """The driver's library."""

    def __init__(self) -> None:
        """Not opened yet."""
        self._fresh = False
        self._started = False
        self._nvml: ModuleType | None = None

    @property
    def binding(self) -> Any:
        """The module pynvml, once opened."""
        assert self._nvml is not None, "open() comes first"
        return self._nvml

    def open(self) -> None:
        """Loads the library and starts it, or starts it anew. Nothing else may be asking it.

        Raises:
            NvmlMissingError: if there is none, or it refuses.
        """
        if self._nvml is None:
            self._nvml = _load()
        nvml, self._started, started = self._nvml, False, self._started
        try:
            if started:
                # It counts its users, and finds a driver anew for the first one only.
                nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            log.info("nvml.not_shut_down", error=str(error))
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            hint = _UPDATED if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH else ""
            raise NvmlMissingError(f"no GPUs: NVML says {error}{hint}") from error
        self._started = self._fresh = True

    def read(self) -> Reading:
        """All cards.

        Raises:
            DriverGoneError: if the driver is not loaded any more: `open` again.
        """
        nvml = self.binding
        fresh, self._fresh = self._fresh, False
        problems: list[str] = []
        cards: list[Card] = []
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            if error.value in _driver_gone(nvml):
                raise DriverGoneError(str(error)) from error
            return Reading(problems=(f"NVML does not count the GPUs: {error}",), fresh=fresh)
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
            except nvml.NVMLError as error:
                if error.value in _driver_gone(nvml):
                    raise DriverGoneError(str(error)) from error
                problems.append(f"GPU {index}: {error}")
                continue
            cards.append(_Asked(nvml, index, problems).card(handle, uuid))
        return Reading(tuple(cards), tuple(problems[:MAX_PROBLEMS]), fresh)


class _Asked:
    """One card while it is asked."""

    def __init__(self, nvml: Any, index: int, problems: list[str]) -> None:
        self._nvml = nvml
        self._index = index
        self._problems = problems
        self._lost = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_GPU_NOT_FOUND)
        # Said of what this card, driver or user cannot be asked.
        self._usual = (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_NOT_FOUND,
            nvml.NVML_ERROR_NO_DATA,
        )
        self._reset = False

    def card(self, handle: Any, uuid: str) -> Card:
        nvml = self._nvml
        try:
            mode = self._ask(nvml.nvmlDeviceGetMigMode, handle)
            whole = self._figures(handle, uuid)
            offers: tuple[Figures, ...] = (whole,)
            if mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE:
                offers = self._instances(handle, whole)
            return Card(uuid, offers, self._needs(handle))
        except _CardLostError:
            return Card(uuid, lost=True)

    def _figures(self, handle: Any, uuid: str) -> Figures:
        nvml, ask = self._nvml, self._ask
        total_bytes, used_bytes = _memory(ask(nvml.nvmlDeviceGetMemoryInfo, handle))
        load = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        ecc = nvml.nvmlDeviceGetTotalEccErrors
        return Figures(
            uuid=uuid,
            product_name=ask(nvml.nvmlDeviceGetName, handle) or "",
            memory_total_bytes=total_bytes,
            memory_used_bytes=used_bytes,
            utilization_ratio=None if load is None else min(1.0, load.gpu / _PERCENT),
            temperature_celsius=_most(ask(nvml.nvmlDeviceGetTemperature, handle, 0), MAX_CELSIUS),
            power_watts=_watts(ask(nvml.nvmlDeviceGetPowerUsage, handle)),
            power_limit_watts=_watts(ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
            ecc_corrected_count=_most(ask(ecc, handle, _CORRECTED, _SINCE_LOAD), MAX_COUNT),
            ecc_uncorrected_count=_most(ask(ecc, handle, _UNCORRECTED, _SINCE_LOAD), MAX_COUNT),
            processes=self._processes(handle),
        )

    def _instances(self, handle: Any, card: Figures) -> tuple[Figures, ...]:
        """The MIG instances: memory and processes are their own, the rest is the card's."""
        nvml, ask = self._nvml, self._ask
        found: list[Figures] = []
        most = ask(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        for index in range(min(most, MAX_INSTANCES)):
            instance = ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
            uuid = None if instance is None else ask(nvml.nvmlDeviceGetUUID, instance)
            if uuid is None:
                continue
            total_bytes, used_bytes = _memory(ask(nvml.nvmlDeviceGetMemoryInfo, instance))
            ids = (
                ask(nvml.nvmlDeviceGetGpuInstanceId, instance),
                ask(nvml.nvmlDeviceGetComputeInstanceId, instance),
            )
            found.append(
                Figures(
                    uuid=uuid,
                    product_name=ask(nvml.nvmlDeviceGetName, instance) or card.product_name,
                    memory_total_bytes=total_bytes,
                    memory_used_bytes=used_bytes,
                    temperature_celsius=card.temperature_celsius,
                    power_watts=card.power_watts,
                    power_limit_watts=card.power_limit_watts,
                    ecc_corrected_count=card.ecc_corrected_count,
                    ecc_uncorrected_count=card.ecc_uncorrected_count,
                    processes=self._processes(instance),
                    instance=(_id(ids[0]), _id(ids[1])),
                )
            )
        if not found:
            self._problems.append(
                f"GPU {self._index} is in MIG mode and has no instances: make some with "
                "nvidia-smi mig -cgi … -C"
            )
        return tuple(found)

    def _processes(self, handle: Any) -> tuple[ProcessUse, ...]:
        """Those with compute contexts, of their own or through MPS, whose memory is known."""
        nvml = self._nvml
        used: dict[int, int] = {}
        for call in (
            nvml.nvmlDeviceGetComputeRunningProcesses_v3,
            nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
        ):
            for process in self._ask(call, handle) or ():
                held = _most(process.usedGpuMemory, MAX_MEMORY_BYTES)
                if held is None:
                    # As in WSL. Told as none, what a replica holds would count as others'.
                    continue
                if process.pid <= MAX_PROCESS_ID and len(used) < MAX_PROCESSES:
                    used[process.pid] = max(used.get(process.pid, 0), int(held))
        return tuple(ProcessUse(pid, used_bytes) for pid, used_bytes in used.items())

    def _needs(self, handle: Any) -> Needs:
        nvml = self._nvml
        action = None
        field = nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
        values = self._ask(nvml.nvmlDeviceGetFieldValues, handle, [field])
        if values is not None and values[0].nvmlReturn == nvml.NVML_SUCCESS:
            action = int(values[0].value.uiVal)
        rows = self._ask(nvml.nvmlDeviceGetRemappedRows, handle) or (0, 0, 0, 0)
        return Needs(action, self._reset, bool(rows[3]), bool(rows[2]))

    def _ask(self, call: Callable[..., Any], *args: Any) -> Any:
        """What a query says; None if it says nothing.

        Raises:
            _CardLostError: if the card is lost.
            DriverGoneError: if the driver is.
        """
        try:
            return call(*args)
        except self._nvml.NVMLError as error:
            code = error.value
            if code in self._lost:
                raise _CardLostError from error
            if code in _driver_gone(self._nvml):
                raise DriverGoneError(str(error)) from error
            if code == self._nvml.NVML_ERROR_RESET_REQUIRED:
                self._reset = True
            elif code not in self._usual:
                what = call.__name__.removeprefix("nvmlDeviceGet")
                said = f"GPU {self._index}: {what}: {error}"
                self._problems.append(said[:MAX_PROBLEM_CHARACTERS])
            return None


def _load() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # The package pynvml only brings nvidia-ml-py, which warns about the name.
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml
    except ImportError as error:
        why = "pynvml is not installed, so GPUs are not looked for"
        raise NvmlMissingError(why, for_good=True) from error
    module: ModuleType = pynvml
    return module


def _driver_gone(nvml: Any) -> tuple[int, ...]:
    return (
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    )


def _most(figure: int | None, most: int) -> int | None:
    """A figure that can be true; None for any other."""
    return figure if figure is not None and 0 <= figure <= most else None


def _watts(milliwatts: int | None) -> float | None:
    found = _most(milliwatts, MAX_WATTS * _MILLI)
    return None if found is None else found / _MILLI


def _memory(memory: Any) -> tuple[int | None, int | None]:
    """Total and used bytes, never more used than there is."""
    total = None if memory is None else _most(memory.total, MAX_MEMORY_BYTES)
    return total, None if total is None else min(memory.used, total)


def _id(number: int | None) -> int:
    return _WHOLE if number is None else number
