"""The GPUs of this node: by NVML where there are any, or simulated where that was asked for.

No NVML is a state, not an error: the node then offers its CPU slots, says why it has no GPUs, and
looks again now and then. The GPUs are read every second by a thread of their own, and reports have
what was read last: nothing ever waits for NVML. While it does not answer, what runs goes on, and
nothing new is started on this node, as a start would have to ask the driver too.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from forebay.v1.node_pb2 import Gpu
from services.node_agent import simulated_gpus
from services.node_agent.gpus.events import EventWatcher
from services.node_agent.gpus.health import Verdict
from services.node_agent.gpus.known import KnownGpus
from services.node_agent.gpus.nvml import DriverGoneError, Nvml, NvmlMissingError
from services.node_agent.gpus.nvml_thread import NvmlThread
from services.node_agent.gpus.reading import Event, Reading
from services.node_agent.gpus.users import GpuUsers
from services.node_agent.simulated_gpus import Holding, Simulation
from services.runtime.clock import Clock, SystemClock

log = structlog.get_logger()

INTERVAL_S = 1.0
RETRY_S = 5.0
"""Between two looks for a driver where there is none."""

FIRST_READ_S = 10.0
"""How long the agent's start waits: without persistence mode, the driver takes seconds per GPU."""

HANG_S = 5.0

_CANNOT_START = "NVML does not answer, so nothing new is started; what runs goes on"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found.

    Attributes:
        gpus: every GPU with its load.
        message: why there are none, or what is wrong; empty if all is well.
        cannot_start: why no replica can be started now; empty if one can.
        used_bytes: GPU memory that the processes of each replica hold, by replica id.
    """

    gpus: tuple[Gpu, ...] = ()
    message: str = ""
    cannot_start: str = ""
    used_bytes: Mapping[str, int] = field(default_factory=dict)


class GpuInventory:
    """Reads the GPUs of this machine, or makes up those of a simulation."""

    def __init__(
        self,
        simulation: Simulation | None = None,
        clock: Clock | None = None,
        ignored_xids: frozenset[int] = frozenset(),
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Looks for nothing until opened.

        Args:
            simulation: GPUs to make up in place of the machine's.
            clock: this machine's.
            ignored_xids: fatal errors that the operator does not want to be fatal.
            changed: called when a GPU's health has changed, on the event loop.
        """
        self.simulation = simulation
        self._clock = clock or SystemClock()
        self._changed = changed
        self._known = KnownGpus(ignored_xids)
        self._verdicts: dict[str, Verdict] = {}
        self._nvml = Nvml()
        self._opened = False
        self._thread = NvmlThread(self._ask)
        self._events = EventWatcher(self._nvml, self._clock, self._on_event, self.look_again)
        self._again = asyncio.Event()
        self._asked: asyncio.Future[Reading] | None = None
        self._asked_s = self._read_s = self._clock.monotonic_s()
        self._next_try_s: float | None = self._asked_s
        self._missing = "GPUs have not been looked for yet"
        self._problems: tuple[str, ...] = ()
        self._hangs = False
        self._took_s = 0.0

    async def open(self) -> None:
        """Reads the GPUs for the first time, in at most FIRST_READ_S."""
        if self.simulation is not None:
            self._missing = simulated_gpus.message(self.simulation)
        else:
            await self._look(FIRST_READ_S)
        log.info("inventory.gpus", gpus=len(self._verdicts), message=self._missing)

    async def run(self) -> None:
        """Reads the GPUs every second, and when something happens to one, until it is cancelled."""
        try:
            await self._go_on_reading()
        finally:
            self._events.close()
            self._thread.close()

    async def _go_on_reading(self) -> None:
        while True:
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._again.wait()
            except TimeoutError:
                pass
            self._again.clear()
            if self.simulation is None:
                await self._look(INTERVAL_S)

    def look_again(self) -> None:
        """Has the GPUs read at once."""
        self._again.set()

    @property
    def watched(self) -> frozenset[str]:
        """Cards whose errors are told as they happen, by UUID."""
        return self._events.watched

    def unusable(self) -> dict[str, str]:
        """What is wrong with each GPU that no replica may run on, by UUID."""
        return self._known.unusable()

    def read(
        self,
        holdings: Iterable[Holding] = (),
        process_ids: Mapping[str, Iterable[int]] | None = None,
    ) -> Inventory:
        """The GPUs as they were read last; waits for nothing.

        Args:
            holdings: what the replicas hold, which is the load of simulated GPUs.
            process_ids: of each replica, by replica id.
        """
        if self.simulation is not None:
            return Inventory(simulated_gpus.offer(self.simulation, holdings), self._missing)
        users = GpuUsers.of(process_ids or {})
        hang = self._hang_message()
        return Inventory(
            gpus=self._known.gpus(users),
            message="; ".join(filter(None, (self._missing, hang, *self._problems))),
            cannot_start=_CANNOT_START if hang else "",
            used_bytes=self._known.used_bytes(users),
        )

    def _ask(self) -> Reading:
        """All cards, on NVML's thread."""
        if not self._opened:
            self._nvml.open()
            self._opened = True
        try:
            return self._nvml.read()
        except DriverGoneError:
            self._opened = False
            raise

    async def _look(self, wait_s: float) -> None:
        """Reads the cards, or goes on waiting for a reading that takes long."""
        now_s = self._clock.monotonic_s()
        if self._asked is None:
            if self._next_try_s is None or now_s < self._next_try_s:
                return
            self._asked, self._asked_s = self._thread.call(), now_s
        await asyncio.wait({self._asked}, timeout=wait_s)
        if self._asked.done():
            asked, self._asked = self._asked, None
            self._took_s = self._clock.monotonic_s() - self._asked_s
            self._take(asked)
        hangs = bool(self._hang_message())
        if hangs != self._hangs:
            self._hangs = hangs
            log.warning("gpu.nvml_hangs" if hangs else "gpu.nvml_answers")
            self._changed()

    def _take(self, asked: "asyncio.Future[Reading]") -> None:
        now_s = self._clock.monotonic_s()
        try:
            reading = asked.result()
        except (NvmlMissingError, DriverGoneError) as error:
            for_good = isinstance(error, NvmlMissingError) and error.for_good
            self._next_try_s = None if for_good else now_s + RETRY_S
            self._missing = _missing(error)
            self._problems = ()
            self._known.lose_all(self._missing, now_s)
            self._events.watch(frozenset())
        else:
            watched = self._events.watched
            cards = tuple(replace(c, watched=c.uuid in watched) for c in reading.cards)
            self._missing, self._problems, self._read_s = "", reading.problems, now_s
            self._known.apply(replace(reading, cards=cards), now_s)
            self._events.watch(frozenset(c.uuid for c in cards if not c.lost))
        self._compare()

    def _on_event(self, event: Event) -> None:
        if self._known.note(event):
            log.warning(
                "gpu.error", gpu=event.card, xid=event.xid, double_bit_ecc=event.double_bit_ecc
            )
        self._compare()

    def _compare(self) -> None:
        """Says so if the health of a GPU has changed."""
        verdicts = self._known.verdicts()
        before, self._verdicts = self._verdicts, verdicts
        if verdicts == before:
            return
        for uuid, verdict in verdicts.items():
            if verdict != before.get(uuid):
                name = Gpu.Health.Name(verdict.health)
                level = log.info if verdict.usable else log.warning
                level("gpu.health", gpu=uuid, health=name, message=verdict.message)
        self._changed()

    def _hang_message(self) -> str:
        """What to say while NVML does not answer, or took that long to answer last."""
        now_s = self._clock.monotonic_s()
        waiting_s = 0.0 if self._asked is None else now_s - self._asked_s
        if max(waiting_s, self._took_s) < HANG_S:
            return ""
        said = (
            f"NVML has not answered for {waiting_s:.0f} s"
            if waiting_s >= HANG_S
            else f"NVML took {self._took_s:.0f} s to answer"
        )
        return f"{said}: what is said of the GPUs is {now_s - self._read_s:.0f} s old"


def _missing(error: Exception) -> str:
    if isinstance(error, DriverGoneError):
        return f"no GPUs: NVML says {error}, and had some before"
    return str(error)
