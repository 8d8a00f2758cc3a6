"""Keeps a replica from running on a GPU that does not work."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import structlog

from services.node_agent.ending import end
from services.node_agent.runtime import StartRefusedError

log = structlog.get_logger()


class GpuFailedError(StartRefusedError):
    """A GPU of the replica must not be used; the text says which and why."""


class GpuTrouble:
    """What is wrong with the GPUs of one replica, at most.

    Attributes:
        reason: what is wrong, for a person; empty if all is well.
    """

    def __init__(self, gpu_uuids: Iterable[str]) -> None:
        """All is well until told otherwise.

        Args:
            gpu_uuids: the GPUs that the replica was given.
        """
        self._gpu_uuids = tuple(gpu_uuids)
        self.reason = ""
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    def tell(self, unusable: Mapping[str, str]) -> bool:
        """Tells what is wrong with GPUs by their UUID; whether one of the replica's is among them.

        Args:
            unusable: what is wrong with each GPU of the node that must not be used.
        """
        wrong = [f"GPU {u} failed: {unusable[u]}" for u in self._gpu_uuids if u in unusable]
        self.reason = "; ".join(wrong)
        (self._some if wrong else self._none).set()
        (self._none if wrong else self._some).clear()
        return bool(wrong)

    async def over(self) -> None:
        """Waits until all is well."""
        log.warning("replica.gpu_failed", reason=self.reason)
        await self._none.wait()

    async def guard(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does something that needs the GPUs, and leaves off when one fails.

        Raises:
            GpuFailedError: if one has failed, or does meanwhile.
        """
        if self.reason:
            raise GpuFailedError(self.reason)
        doing, failing = asyncio.ensure_future(work()), asyncio.ensure_future(self._some.wait())
        try:
            await asyncio.wait({doing, failing}, return_when=asyncio.FIRST_COMPLETED)
            if self.reason:
                raise GpuFailedError(self.reason)
            await doing
        finally:
            await end(doing, failing)
