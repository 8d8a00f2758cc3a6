"""A Triton that is lost: why, in words, and what was inside is given back."""

import asyncio
from pathlib import Path

from services.node_agent.ending import end
from services.node_agent.feeding import Feeding
from services.node_agent.replica_log import read_tail
from services.node_agent.runtime import Triton
from services.node_agent.triton.triton_client import TritonClient
from services.node_agent.triton.triton_log import last_words

END_S = 3.0
"""How long requests wait for the end of a lost Triton before they are given back without it."""

GIVE_BACK_S = 2.0


async def end_under_requests(triton: Triton, client: TritonClient, feeding: Feeding) -> None:
    """Ends a lost Triton: calls under way fail, which gives requests and tasks back."""
    ending = asyncio.create_task(triton.stop(graceful=False))
    try:
        await asyncio.wait({ending}, timeout=END_S)
        # One that cannot be ended now would keep them for as long as it is frozen.
        await client.close()
        await feeding.give_back(GIVE_BACK_S)
    finally:
        # Its replica ends it once more before the next start.
        await end(ending)


async def told(what: str, triton: Triton, directory: Path) -> str:
    """What went wrong, why its runtime says it did, and what Triton wrote last."""
    why = await triton.why_ended()
    return ": ".join(filter(None, (what, why, await log_words(directory))))


async def log_words(directory: Path) -> str:
    """What a replica's Triton wrote last."""
    text = await asyncio.to_thread(read_tail, directory / "triton.log", 200)
    return last_words(text) or "it wrote nothing to its log"
