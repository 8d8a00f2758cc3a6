"""Bytes on their way at once."""

import asyncio

from services.router.tasks.room import Room
from tests.support.eventually import eventually


async def test_who_comes_first_gets_room_first() -> None:
    room = Room(100)
    await room.take(80)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await room.take(size)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(take("large", 90))
        group.create_task(take("small", 10))
        await asyncio.sleep(0)
        assert not order
        room.give(80)
    assert order == ["large", "small"]
    assert room.used_bytes == 100


async def test_what_is_larger_than_all_room_goes_alone() -> None:
    room = Room(100)
    await room.take(1000)
    assert not room.fits(1)
    room.give(1000)
    assert room.fits(1)


async def test_who_gives_up_waiting_holds_nobody_back() -> None:
    room = Room(100)
    await room.take(100)
    first = asyncio.create_task(room.take(50))
    second = asyncio.create_task(room.take(50))
    await asyncio.sleep(0)
    first.cancel()
    room.give(100)
    await eventually(second.done)
    assert room.used_bytes == 50
