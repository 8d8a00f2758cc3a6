"""One thread for NVML alone, as its calls block, some for seconds and, with a broken GPU, for good.

Not the pool that everything else shares: a call that never returns would take one of its few
threads for ever, and keep the process from ending. This one is a daemon.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_Asked = tuple[asyncio.AbstractEventLoop, "asyncio.Future[T]"]


class NvmlThread(Generic[T]):
    """Runs one function again and again, off the event loop."""

    def __init__(self, work: Callable[[], T]) -> None:
        """Starts with the first call.

        Args:
            work: what to run.
        """
        self._work = work
        self._asked: queue.SimpleQueue[_Asked[T] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self) -> "asyncio.Future[T]":
        """Has the work done once; the future has what it returns or raises."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._asked.put((loop, done))
        return done

    def close(self) -> None:
        """Ends the thread, once the call it is in returns."""
        self._asked.put(None)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            loop, done = asked
            tell: Callable[[], None]
            try:
                result = self._work()
            except Exception as error:  # noqa: BLE001  whatever it is, who asked gets it
                tell = _raiser(done, error)
            else:
                tell = _setter(done, result)
            try:
                loop.call_soon_threadsafe(tell)
            except RuntimeError:
                # The loop has ended meanwhile: nobody waits any more.
                return


def _setter(done: "asyncio.Future[T]", result: T) -> Callable[[], None]:
    return lambda: None if done.cancelled() else done.set_result(result)


def _raiser(done: "asyncio.Future[T]", error: Exception) -> Callable[[], None]:
    return lambda: None if done.cancelled() else done.set_exception(error)
