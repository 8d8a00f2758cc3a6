"""An event loop in a thread of its own, for callers that have none."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from forebay.errors import ForebayError

T = TypeVar("T")


class Portal:
    """Runs coroutines for any thread; Ctrl-C in the calling thread cancels the call."""

    def __init__(self, name: str) -> None:
        """Starts the loop.

        Args:
            name: of its thread.
        """
        self._loop = asyncio.new_event_loop()
        # A daemon: a client that nobody closed must not keep the process.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be run any more."""
        return self._loop.is_closed()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop and returns what it returns.

        Raises:
            ForebayError: if the portal is closed.
        """
        if self.is_closed:
            coroutine.close()
            raise ForebayError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def tell(self, function: Any) -> None:
        """Has a function called on the loop soon, if the loop still runs."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass

    def close(self) -> None:
        """Cancels what still runs and ends the thread."""
        if self.is_closed:
            return
        self.call(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
