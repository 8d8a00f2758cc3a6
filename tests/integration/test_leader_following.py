"""Agents find the autoscaler that leads, on real connections."""

import asyncio
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

from services.node_agent import assignments
from services.node_agent.accepted_word import AcceptedWord
from services.node_agent.reconcile import AssignedSet, accepts
from tests.support.eventually import eventually
from tests.support.free_port import free_address
from tests.support.leader import Leader

_LEADER = """\
import asyncio
from tests.support.leader import Leader

async def main():
    async with Leader().serving() as leader:
        print(leader.address, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Heard:
    """What an agent has accepted, by the rule that agents have."""

    def __init__(self, state_dir: Path) -> None:
        self._word = AcceptedWord(state_dir)
        self._accepted = self._word.read()
        self.sets: list[AssignedSet] = []
        self.refused_count = 0

    def accept(self, offered: AssignedSet) -> bool:
        if not accepts(self._accepted, offered):
            self.refused_count += 1
            return False
        self._word.keep(offered)
        self._accepted = offered
        self.sets.append(offered)
        return True

    @property
    def epochs(self) -> list[int]:
        return [each.epoch for each in self.sets]


@asynccontextmanager
async def following(addresses: Sequence[str], heard: Heard) -> AsyncIterator[None]:
    task = asyncio.ensure_future(assignments.follow(addresses, "node-1", heard.accept))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_standby_is_passed_over_and_the_leader_heard(tmp_path: Path) -> None:
    standby, leader, heard = Leader(), Leader(), Heard(tmp_path)
    standby.leading = False
    async with standby.serving(), leader.serving():
        await leader.say([], revision=4)
        async with following([standby.address, leader.address], heard):
            await eventually(lambda: heard.sets)
            await leader.say([], revision=5)
            await eventually(lambda: len(heard.sets) == 2)
    assert [each.revision for each in heard.sets] == [4, 5]


async def test_a_new_leader_is_followed_within_about_a_second(tmp_path: Path) -> None:
    first, second, heard = Leader(), Leader(), Heard(tmp_path)
    second.leading = False
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(second.serving())
        while_first = await stack.enter_async_context(AsyncExitStack())
        await while_first.enter_async_context(first.serving())
        await stack.enter_async_context(following([first.address, second.address], heard))
        await eventually(lambda: heard.epochs == [1])
        await while_first.aclose()
        # Nobody leads for so long that the pauses are at their longest.
        await eventually(lambda: len(second.asked_s) >= 6)
        rounds_s = [after - before for before, after in pairwise(second.asked_s)]
        await second.say([], revision=1, epoch=2)
        second.leading = True
        leads_s = time.monotonic()
        await eventually(lambda: heard.epochs == [1, 2])
        # It is asked in each round, the longest of which takes 0.9 s, or more on a busy machine.
        assert time.monotonic() - leads_s < 1.2 + 2 * max(rounds_s)


async def test_a_leader_that_is_frozen_is_left_within_15_s(tmp_path: Path) -> None:
    """Its kernel goes on acknowledging; only a question that nobody answers tells."""
    other, heard = Leader(), Heard(tmp_path)
    frozen = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LEADER), cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    try:
        assert frozen.stdout is not None
        address = (await frozen.stdout.readline()).decode().strip()
        async with other.serving(), following([address, other.address], heard):
            await eventually(lambda: heard.epochs == [1])
            frozen.send_signal(signal.SIGSTOP)
            stopped_s = time.monotonic()
            await other.say([], revision=1, epoch=2)
            await eventually(lambda: heard.epochs == [1, 2], timeout_s=60)
            # 10 s as a rule; the pings of HTTP/2 would tell after more than 20.
            assert time.monotonic() - stopped_s < 20
    finally:
        frozen.kill()
        await frozen.communicate()


async def test_autoscalers_that_are_away_are_dialled_at_an_even_pace(tmp_path: Path) -> None:
    standby, heard = Leader(), Heard(tmp_path)
    standby.leading = False
    nobody = free_address()
    async with standby.serving(), following([standby.address, nobody], heard):
        await eventually(lambda: len(standby.asked_s) == 8)
    gaps = [after - before for before, after in pairwise(standby.asked_s)]
    assert min(gaps) > 0.03
    # Pauses that went on doubling would be 1.6 s to 6.4 s by now.
    assert statistics.median(gaps[-3:]) < 1.5


async def test_an_older_epoch_is_refused_and_the_other_autoscaler_asked(tmp_path: Path) -> None:
    former, leader = Leader(), Leader()
    await former.say([], revision=50, epoch=1)
    await leader.say([], revision=3, epoch=2)
    AcceptedWord(tmp_path).keep(AssignedSet((), revision=2, epoch=2))
    heard = Heard(tmp_path)
    async with former.serving(), leader.serving():
        async with following([former.address, leader.address], heard):
            await eventually(lambda: heard.sets)
    assert heard.refused_count >= 1
    assert heard.epochs == [2]
    assert AcceptedWord(tmp_path).read() == AssignedSet((), revision=3, epoch=2)
