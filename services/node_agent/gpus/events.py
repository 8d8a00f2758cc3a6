"""Waits for what the driver tells of its own accord: Xids, ECC errors, recovery actions.

In a thread of its own, which waits in NVML for half a second at a time, so that it can be told to
watch other cards. NVML tells only what happens after a card was registered.
"""

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Any

import structlog

from services.node_agent.gpus import xids
from services.node_agent.gpus.nvml import Nvml
from services.node_agent.gpus.reading import Event
from services.runtime.clock import Clock

log = structlog.get_logger()

WAIT_MS = 500
RETRY_S = 1.0
SILENT_S = 10.0
"""A wait that has not come back for so long never will: nothing is watched any more."""

MAX_XID = 9999
"""What is above is none, and would not fit where it is counted."""

_NOT_SAID = 0xFFFFFFFF


class EventWatcher:
    """Tells of the events of some cards."""

    def __init__(
        self, nvml: Nvml, clock: Clock, tell: Callable[[Event], None], look: Callable[[], None]
    ) -> None:
        """Watches nothing until told to.

        Args:
            nvml: opened before the first `watch` of a card.
            clock: this machine's.
            tell: called on the event loop with each event.
            look: called on the event loop when the cards should be read anew.
        """
        self._nvml = nvml
        self._clock = clock
        self._tell = tell
        self._look = look
        self._wanted: frozenset[str] = frozenset()
        self._watched: frozenset[str] = frozenset()
        self._returned_s = 0.0
        self._changed = threading.Event()
        self._ended = False
        self._broken = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def watched(self) -> frozenset[str]:
        """The cards whose errors are told as they happen."""
        alive = self._clock.monotonic_s() - self._returned_s < SILENT_S
        return self._watched if alive else frozenset()

    def watch(self, cards: frozenset[str]) -> None:
        """Watches these cards, by UUID, in place of those before."""
        if cards == self._wanted:
            return
        self._wanted = cards
        self._changed.set()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, name="nvml-events", daemon=True).start()

    def close(self) -> None:
        """Ends the thread, within half a second."""
        self._ended = True
        self._changed.set()

    def _run(self) -> None:
        while not self._ended:
            self._changed.clear()
            wanted = self._wanted
            if not wanted:
                self._watched = frozenset()
                self._changed.wait()
                continue
            binding = self._nvml.binding
            try:
                self._follow(binding, wanted)
            except binding.NVMLError as error:
                # A GPU that is lost, or the driver: what is left of them is found by reading.
                if str(error) != self._broken:
                    log.warning("gpu.events_broken", error=str(error))
                self._broken = str(error)
                self._on_loop(self._look)
                self._changed.wait(RETRY_S)

    def _follow(self, nvml: Any, wanted: frozenset[str]) -> None:
        """Watches until other cards are wanted, or NVML refuses."""
        events = nvml.nvmlEventSetCreate()
        try:
            cards = self._register(nvml, events, wanted)
            self._watched, self._returned_s = frozenset(cards.values()), self._clock.monotonic_s()
            if not cards:
                self._changed.wait()
            while not self._changed.is_set():
                try:
                    event = nvml.nvmlEventSetWait_v2(events, WAIT_MS)
                except nvml.NVMLError_Timeout:
                    event = None
                self._returned_s, self._broken = self._clock.monotonic_s(), ""
                if event is not None:
                    self._pass_on(nvml, event, cards)
        finally:
            nvml.nvmlEventSetFree(events)

    def _register(self, nvml: Any, events: Any, wanted: frozenset[str]) -> dict[int | None, str]:
        """The cards that can be watched, by the address that their events have."""
        asked = (
            nvml.nvmlEventTypeXidCriticalError
            | nvml.nvmlEventTypeDoubleBitEccError
            | nvml.nvmlEventTypeGpuUnavailableError
            | nvml.nvmlEventTypeGpuRecoveryAction
        )
        cards: dict[int | None, str] = {}
        for uuid in sorted(wanted):
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
                kinds = asked & nvml.nvmlDeviceGetSupportedEventTypes(handle)
                nvml.nvmlDeviceRegisterEvents(handle, kinds, events)
            except nvml.NVMLError as error:
                log.warning("gpu.events_unsupported", gpu=uuid, error=str(error))
                continue
            cards[_address(handle)] = uuid
        return cards

    def _pass_on(self, nvml: Any, event: Any, cards: dict[int | None, str]) -> None:
        card = cards.get(_address(event.device))
        if card is None:
            return
        where = (int(event.gpuInstanceId), int(event.computeInstanceId))
        instance = None if _NOT_SAID in where else where
        if event.eventType == nvml.nvmlEventTypeXidCriticalError:
            xid = min(int(event.eventData), MAX_XID)
            self._on_loop(lambda: self._tell(Event(card, xid=xid, instance=instance)))
            if xid == xids.RECOVERY_ACTION_CHANGED:
                self._on_loop(self._look)
        elif event.eventType == nvml.nvmlEventTypeDoubleBitEccError:
            self._on_loop(lambda: self._tell(Event(card, double_bit_ecc=True, instance=instance)))
        else:
            self._on_loop(self._look)

    def _on_loop(self, work: Callable[[], None]) -> None:
        assert self._loop is not None, "watch() has it"
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            # The loop has ended, and with it the agent.
            self._ended = True


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
