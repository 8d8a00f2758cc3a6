"""Waiting for something to become true, without sleeping longer than needed."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.02

TIMEOUT_S = 30.0
"""Most of what is waited for takes milliseconds; on a busy machine, a process may stand still for
seconds."""


async def eventually(
    probe: Callable[[], T | Awaitable[T]], timeout_s: float = TIMEOUT_S, what: str = ""
) -> T:
    """Returns the first true value of `probe`, called again and again.

    A probe that raises AssertionError, LookupError or OSError is tried again too, so that it can be
    a block of assertions.

    Args:
        probe: a function or a coroutine function without arguments.
        timeout_s: how long to go on.
        what: said when it never became true.

    Raises:
        AssertionError: when the time is over, with the last value or the last error.
    """
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            value = probe()
            if inspect.isawaitable(value):
                value = await value
        except (AssertionError, LookupError, OSError) as error:
            last = error
        else:
            if value:
                return value
            last = value
        if time.monotonic() > deadline:
            cause = last if isinstance(last, BaseException) else None
            name = what or getattr(probe, "__name__", "it")
            raise AssertionError(
                f"{name} did not happen within {timeout_s} s; last: {last!r}"
            ) from cause
        await asyncio.sleep(_PAUSE_S)
