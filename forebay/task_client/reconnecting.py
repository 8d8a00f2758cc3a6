"""A stream that is opened again when its router has gone, for so long and no longer."""

import asyncio
import random
import time

import grpc

from forebay.errors import ForebayError
from forebay.task_client.calls import TaskCalls, is_away
from forebay.task_client.patience import Patience

_STOOD_S = 5.0


class Reconnecting:
    """How often one stream failed, and when that is too often."""

    def __init__(self, calls: TaskCalls, patience_s: float, not_found: type[ForebayError]) -> None:
        """Nothing has failed yet.

        Args:
            calls: to the router.
            patience_s: how long to go on while nothing succeeds.
            not_found: what NOT_FOUND means.
        """
        self._calls = calls
        self._patience_s = patience_s
        self._not_found = not_found
        self._pauses = Patience()
        self._failing_since_s: float | None = None
        self._opened_s = time.monotonic()

    def opened(self) -> None:
        """The stream is being opened."""
        self._opened_s = time.monotonic()

    def succeeded(self) -> None:
        """Something came over the stream."""
        self._failing_since_s = None
        self._pauses.succeeded()

    async def failed(self, error: grpc.RpcError | None) -> None:
        """The stream ended; returns when it may be opened again.

        Args:
            error: what it raised; None if the router ended it in peace.

        Raises:
            ForebayError: if opening it again cannot help, or has not helped for too long.
        """
        if error is not None and not is_away(error):
            raise self._calls.typed(error, self._not_found) from None
        now_s = time.monotonic()
        if now_s - self._opened_s > _STOOD_S:
            self.succeeded()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        elif error is not None and now_s - self._failing_since_s > self._patience_s:
            raise self._calls.typed(error, self._not_found) from None
        await asyncio.sleep(self._pauses.pause_s(random.random()))  # noqa: S311
