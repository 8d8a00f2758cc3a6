"""Bytes that may be on their way at once, for all calls of a router together."""

import asyncio


class Room:
    """A number of bytes that who comes first gets first.

    Attributes:
        used_bytes: what is taken.
    """

    def __init__(self, size_bytes: int) -> None:
        """All of it free."""
        self._size_bytes = size_bytes
        self.used_bytes = 0
        # Who holds it waits for room; the others wait behind, so that a large one gets its turn.
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    def fits(self, size_bytes: int) -> bool:
        """Whether there is room for so much; for anything, if all is free."""
        return not self.used_bytes or self.used_bytes + size_bytes <= self._size_bytes

    async def take(self, size_bytes: int) -> None:
        """Waits until there is room, and takes it. Give it back."""
        async with self._turn:
            while not self.fits(size_bytes):
                self._freed.clear()
                await self._freed.wait()
            self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Gives back what was taken."""
        self.used_bytes -= size_bytes
        self._freed.set()
