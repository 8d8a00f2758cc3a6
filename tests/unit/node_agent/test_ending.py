"""Tasks that do not end at the first word."""

import asyncio

from services.node_agent.ending import end


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost_count = 0

    async def loses_one() -> None:
        nonlocal lost_count
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost_count += 1
                if lost_count == 2:
                    raise

    async def fails() -> None:
        raise ValueError

    tasks = [asyncio.ensure_future(loses_one()), asyncio.ensure_future(fails())]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(*tasks)
    assert lost_count == 2
    assert all(task.done() for task in tasks)
