"""How much may be under way at once: items handed in and not yet handed out, and their bytes."""

import asyncio
import threading

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Of inputs that are encoded and not stored yet, so that large items need no large memory."""


class Slots:
    """Counts what is under way; waited for by a thread, or on the event loop that counts."""

    def __init__(self, item_count: int, waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        """Has room.

        Args:
            item_count: items under way at most.
            waiting_bytes: encoded inputs that are not stored yet, above which nothing more starts.
        """
        self._free = item_count
        self._bytes_left = waiting_bytes
        self._closed = False
        self._changed = threading.Condition()
        self._changed_here = asyncio.Event()

    def acquire(self) -> bool:
        """Waits in a thread for room for an item; False if there will be none."""
        with self._changed:
            while not self._may_go():
                self._changed.wait()
            self._free -= 1
            return not self._closed

    async def acquire_here(self) -> bool:
        """Waits on the event loop for room for an item; False if there will be none."""
        while not self._may_go():
            self._changed_here.clear()
            await self._changed_here.wait()
        with self._changed:
            self._free -= 1
        return not self._closed

    def release(self, item_count: int) -> None:
        """Takes note that items were handed out."""
        with self._changed:
            self._free += item_count
            self._changed.notify()
        self._changed_here.set()

    def charge(self, size_bytes: int) -> None:
        """Takes note of encoded inputs."""
        with self._changed:
            self._bytes_left -= size_bytes

    def refund(self, size_bytes: int) -> None:
        """Takes note that encoded inputs are stored, or need not be."""
        with self._changed:
            self._bytes_left += size_bytes
            self._changed.notify()
        self._changed_here.set()

    def close(self) -> None:
        """Lets everybody go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._changed_here.set()

    def _may_go(self) -> bool:
        return self._closed or (self._free > 0 and self._bytes_left > 0)
