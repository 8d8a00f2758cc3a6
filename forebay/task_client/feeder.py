"""Inputs out of the caller's iterator, encoded, into an inbox on the event loop.

An iterator may block, so it is read in a thread of its own; an asynchronous one is read on the
loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from forebay.task_client.groups import Assembler, Group, Made
from forebay.task_client.slots import Slots


@dataclass(frozen=True, slots=True)
class InputEnded:
    """There are no more items.

    Attributes:
        position: where the next would have been.
        error: what the iterator raised; None if it came to its end.
    """

    position: int
    error: Exception | None


Event: TypeAlias = Made | InputEnded


class Inbox:
    """What a feeder has made, for one event loop; filled from any thread."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._is_told = False
        self._loop = asyncio.get_running_loop()

    def put(self, event: Event) -> None:
        """Adds an event; wakes the loop once for many."""
        self._events.append(event)
        if not self._is_told:
            self._is_told = True
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[Event]:
        """Waits for events; returns all there are."""
        await self._arrived.wait()
        self._arrived.clear()
        # Before they are taken: what is put from now on wakes the loop again.
        self._is_told = False
        return [self._events.popleft() for _ in range(len(self._events))]


class Feeder:
    """Reads inputs as far as there is room for them."""

    def __init__(
        self,
        inputs: Iterable[Any] | AsyncIterable[Any],
        assembler: Assembler,
        slots: Slots,
        inbox: Inbox,
        first: int,
    ) -> None:
        """Reads nothing yet.

        Args:
            inputs: iterated once, in order.
            assembler: makes tasks of them.
            slots: room.
            inbox: where what was made goes.
            first: position of the first input.
        """
        self._inputs = inputs
        self._assembler = assembler
        self._slots = slots
        self._inbox = inbox
        self._position = first

    async def run(self) -> None:
        """Reads to the end, on the loop or by a thread; cancelled when nobody wants more."""
        if isinstance(self._inputs, AsyncIterable):
            await self._run_here(self._inputs)
        else:
            # Of its own and a daemon: an iterator that blocks for ever must not hold up whoever
            # stops, nor the end of the process.
            threading.Thread(
                target=self._run_in_thread, args=(self._inputs,), name="forebay-map", daemon=True
            ).start()

    def _run_in_thread(self, inputs: Iterable[Any]) -> None:
        error = None
        try:
            iterator = iter(inputs)
            while self._slots.acquire():
                self._accept(next(iterator))
            return
        except StopIteration:
            pass
        except Exception as raised:  # noqa: BLE001 - handed to whoever reads the results
            error = raised
        try:
            self._end(error)
        except RuntimeError:
            # The loop has gone, and with it whoever would want to know.
            pass

    async def _run_here(self, inputs: AsyncIterable[Any]) -> None:
        error = None
        iterator = aiter(inputs)
        try:
            while await self._slots.acquire_here():
                self._accept(await anext(iterator))
            return
        except StopAsyncIteration:
            pass
        except Exception as raised:  # noqa: BLE001 - handed to whoever reads the results
            error = raised
        self._end(error)

    def _accept(self, item: Any) -> None:
        for made in self._assembler.add(self._position, item):
            self._put(made)
        self._position += 1

    def _end(self, error: Exception | None) -> None:
        for made in self._assembler.end():
            self._put(made)
        self._inbox.put(InputEnded(self._position, error))

    def _put(self, made: Made) -> None:
        if isinstance(made, Group):
            self._slots.charge(made.size_bytes)
        self._inbox.put(made)
