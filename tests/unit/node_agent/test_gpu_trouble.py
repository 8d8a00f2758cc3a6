"""A replica and the GPUs under it."""

import asyncio

import pytest

from services.node_agent.gpus.trouble import GpuFailedError, GpuTrouble

BROKEN = {"GPU-1": "Xid 79", "GPU-2": "lost"}


async def forever() -> None:
    await asyncio.Event().wait()


def test_only_its_own_gpus_matter() -> None:
    assert not GpuTrouble(["GPU-0"]).tell(BROKEN)
    trouble = GpuTrouble(["GPU-0", "GPU-1", "GPU-2"])
    assert trouble.tell(BROKEN)
    assert trouble.reason == "GPU GPU-1 failed: Xid 79; GPU GPU-2 failed: lost"


async def test_what_needs_a_gpu_ends_when_it_fails() -> None:
    trouble = GpuTrouble(["GPU-1"])
    work = asyncio.ensure_future(trouble.guard(forever))
    await asyncio.sleep(0)
    trouble.tell(BROKEN)
    with pytest.raises(GpuFailedError, match="GPU GPU-1 failed: Xid 79"):
        await work


async def test_nothing_is_begun_on_a_gpu_that_has_failed_and_all_is_well_when_it_is_back() -> None:
    trouble = GpuTrouble(["GPU-1"])
    trouble.tell(BROKEN)
    begun = []

    async def work() -> None:
        begun.append(True)

    with pytest.raises(GpuFailedError):
        await trouble.guard(work)
    assert not begun
    waiting = asyncio.ensure_future(trouble.over())
    trouble.tell({})
    await waiting
    assert trouble.reason == ""
    await trouble.guard(work)
    assert begun


async def test_an_error_of_the_work_itself_passes() -> None:
    async def fail() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        await GpuTrouble(["GPU-1"]).guard(fail)
