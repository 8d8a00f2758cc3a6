"""Under load, lets events gather for a moment so that one wake-up serves many.

A gRPC call costs about a dozen wake-ups between grpcio's poller thread and the event loop, and at
load most of a router's CPU goes there, not into handling. A pause of a fraction of a millisecond
between turns of the loop, as network cards coalesce interrupts, trades latency that a loaded
process does not have anyway for throughput. Without load nothing waits.
"""

import asyncio
import time
from collections.abc import Callable

THRESHOLD = 8
"""Calls under way from which on events are gathered."""

PAUSE_PER_CALL_S = 20e-6
MAX_PAUSE_S = 1e-3

IDLE_CHECK_S = 0.02


def pause_s(under_way: int) -> float:
    """How long to let events gather, by the number of calls under way."""
    return min(MAX_PAUSE_S, under_way * PAUSE_PER_CALL_S) if under_way >= THRESHOLD else 0.0


async def gather_events(under_way: Callable[[], int]) -> None:
    """Runs beside a service's other tasks, for ever.

    Args:
        under_way: how many calls the process is working on.
    """
    while True:
        pause = pause_s(under_way())
        if pause:
            # Blocks the loop on purpose; the poller thread goes on collecting meanwhile.
            time.sleep(pause)  # noqa: ASYNC251
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(IDLE_CHECK_S)
