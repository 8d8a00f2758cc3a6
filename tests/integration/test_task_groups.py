"""Tasks stored together, on a real nats-server: all or none, each once, cut or killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.js.api import StreamConfig

from forebay.v1.envelope_pb2 import OUTCOME_OK, OUTCOME_RESOURCE_EXHAUSTED
from services.wire.stored_publisher import (
    NotStoredError,
    NotTogetherError,
    Outgoing,
    StreamFullError,
    StreamMissingError,
)
from services.wire.tasks import streams, subjects
from tests.support.eventually import eventually
from tests.support.task_ledger import ledger_at
from tests.support.task_service import TaskStation, submission, task_station


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[TaskStation]:
    async with task_station(tmp_path) as station:
        yield station


def group(*ids: str, size: int = 1) -> list[Outgoing]:
    return [
        Outgoing(subjects.task("echo", 2, each, "", 9), b"x" * size, f"echo.{each}") for each in ids
    ]


async def stored_ids(station: TaskStation) -> list[str]:
    found = await station.ledger.reader.read(streams.TASKS, subjects.any_task(), count=1000)
    return [subjects.parse_task(message.subject).task_id for message in found]


async def groups_stored(station: TaskStation) -> int:
    """Groups whose first message is in the queue, as the server's own headers say."""
    info = await station.link.jetstream.stream_info(streams.TASKS)
    count = 0
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await station.link.jetstream.get_msg(streams.TASKS, seq=sequence)
        count += (message.headers or {}).get("Nats-Batch-Sequence") == "1"
    return count


async def test_a_group_is_stored_in_its_order_and_a_single_one_of_it_is_a_duplicate(
    station: TaskStation,
) -> None:
    publisher = station.ledger.publisher
    stored = await publisher.publish_together(group("t1", "t2", "t3"))
    assert [each.sequence for each in stored] == [1, 2, 3]
    assert await stored_ids(station) == ["t1", "t2", "t3"]
    again = group("t2")[0]
    single = await publisher.publish(again.subject, again.payload, again.message_id)
    assert (single.sequence, single.duplicate) == (2, True)


async def test_a_group_with_a_duplicate_is_refused_whole_and_binds_nobody(
    station: TaskStation,
) -> None:
    publisher = station.ledger.publisher
    await publisher.publish_together(group("t1", "t2"))
    for refused in (group("t3", "t2", "t4"), group("t3", "t3")):
        with pytest.raises(NotStoredError, match="duplicate"):
            await publisher.publish_together(refused)
    assert await stored_ids(station) == ["t1", "t2"]
    await publisher.publish_together(group("t3", "t4"))
    assert await stored_ids(station) == ["t1", "t2", "t3", "t4"]


async def test_a_group_that_has_no_room_is_refused_whole(station: TaskStation) -> None:
    await station.limit(streams.TASKS, 4000)
    publisher = station.ledger.publisher
    with pytest.raises(StreamFullError):
        await publisher.publish_together(group(*"abcdefgh", size=1000))
    assert await stored_ids(station) == []
    await station.link.jetstream.delete_stream(streams.TASKS)
    with pytest.raises(StreamMissingError):
        await publisher.publish_together(group("a", "b"))


async def test_of_a_group_that_was_cut_nothing_is_stored_and_none_twice(
    station: TaskStation,
) -> None:
    names = ["t1", "t2", "t3"]
    async with ledger_at(station.nats.url) as (_, cut):
        for number, message in enumerate(group(*names), 1):
            headers = (
                f"Nats-Batch-Id: cut\r\nNats-Batch-Sequence: {number}\r\n"
                f"Nats-Msg-Id: {message.message_id}\r\n"
            )
            cut.client.send(message.subject, message.payload, "", headers.encode())
        await cut.client.flush()
    assert await stored_ids(station) == []
    for message in group(*names):
        await station.ledger.publisher.publish(message.subject, b"x", message.message_id)
    last = group("t4")[0]
    late = b"Nats-Batch-Id: cut\r\nNats-Batch-Sequence: 4\r\nNats-Batch-Commit: 1\r\n"
    with pytest.raises(NotStoredError, match="duplicate"):
        await station.ledger.publisher.publish(last.subject, b"x", last.message_id, headers=late)
    assert await stored_ids(station) == names


async def test_tasks_of_one_message_are_stored_together_and_those_known_before_are_told(
    station: TaskStation,
) -> None:
    wanted = [submission(batch="b", batch_index=n) for n in range(60)]
    first = await station.submit_many(wanted[:30], group=30)
    assert await groups_stored(station) == 1
    told = await station.submit_many(wanted[20:], group=40)
    assert {each.outcome for each in told} == {OUTCOME_OK}
    assert [each.name for each in told[:10]] == [each.name for each in first[20:]]
    assert len(await stored_ids(station)) == 60


async def test_of_a_group_that_has_no_room_those_are_stored_that_have(station: TaskStation) -> None:
    await station.limit(streams.TASKS, 20_000)
    told = await station.submit_many([submission() for _ in range(100)], group=100)
    stored = [each for each in told if each.outcome == OUTCOME_OK]
    refused = {each.outcome for each in told} - {OUTCOME_OK}
    assert refused == {OUTCOME_RESOURCE_EXHAUSTED}
    assert len(await stored_ids(station)) == len(stored) > 20


async def test_a_stream_that_takes_no_groups_gets_single_ones(station: TaskStation) -> None:
    config = (await station.link.jetstream.stream_info(streams.TASKS)).config
    kept = {key: value for key, value in vars(config).items() if value is not None}
    await station.link.jetstream.update_stream(StreamConfig(**{**kept, "allow_atomic": False}))
    with pytest.raises(NotTogetherError):
        await station.ledger.publisher.publish_together(group("t1", "t2"))
    told = await station.submit_many([submission() for _ in range(50)])
    assert {each.outcome for each in told} == {OUTCOME_OK}
    assert len(await stored_ids(station)) == 50
    assert await groups_stored(station) == 0


async def test_a_group_across_a_kill_is_stored_whole_or_not_at_all(station: TaskStation) -> None:
    ids = [[f"t{n}x{each}" for each in range(100)] for n in range(8)]
    under_way = [
        asyncio.ensure_future(station.ledger.publisher.publish_together(group(*each, size=2000)))
        for each in ids
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(station.nats.restart)
    told = await asyncio.gather(*under_way, return_exceptions=True)
    await eventually(lambda: station.link.connected)
    there = set(await stored_ids(station))
    for wanted, result in zip(ids, told, strict=True):
        if isinstance(result, BaseException):
            assert isinstance(result, nats.errors.Error), result
            assert len(there.intersection(wanted)) in {0, 100}
        else:
            assert there.issuperset(wanted)
