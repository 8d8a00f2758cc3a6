"""Lists, watches and purges of many tasks, on a real router and a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from forebay.v1 import task_pb2 as api
from forebay.v1.inference_pb2 import InferResponse
from forebay.v1.task_pb2 import Task
from services.wire.tasks import states, streams
from services.wire.tasks.ledger import INLINE_RESULT_BYTES
from tests.support.eventually import eventually
from tests.support.task_service import PARENT, TaskStation, submission, task_station


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[TaskStation]:
    async with task_station(tmp_path) as station:
        yield station


async def submitted(station: TaskStation, count: int, **options: Any) -> list[Task]:
    told = await station.submit_many(submission(**options) for _ in range(count))
    return [Task(name=each.name) for each in told]


async def watched(station: TaskStation, **filters: Any) -> tuple[list[Task], int]:
    """What a watch until now says, and its last position."""
    tasks: list[Task] = []
    position = 0
    request = api.WatchTasksRequest(parent=PARENT, batch="b", until_now=True, **filters)
    async for answer in station.stub.WatchTasks(request, timeout=60):
        tasks += answer.tasks
        position = answer.position
        caught_up = answer.caught_up
    assert caught_up
    return tasks, position


async def in_batch(station: TaskStation, count: int) -> list[Task]:
    """As many tasks of the batch b, as they wait."""
    told = await station.submit_many(
        submission(batch="b", batch_index=index) for index in range(count)
    )
    return [(await station.envelope(Task(name=each.name))).task for each in told]


async def test_a_list_has_waiting_ones_first_each_oldest_first(station: TaskStation) -> None:
    tasks = [await station.submit(labels={"n": str(n)}) for n in range(6)]
    for task in tasks[:3]:
        await station.end(task)
    for size in (1, 2, 5, 50):
        found = await station.list_all(parent=PARENT, page_size=size)
        assert [t.labels["n"] for t in found] == ["3", "4", "5", "0", "1", "2"], size
        assert not any(task.HasField("result") for task in found)


async def test_a_list_is_filtered_by_all_that_is_asked_for(station: TaskStation) -> None:
    plain = await station.submit()
    batched = await station.submit(batch="b", labels={"x": "1", "y": "2"})
    other = await station.submit(model="other", labels={"x": "1"})
    ended = await station.submit(batch="b")
    await station.end(ended)

    async def names(**filters: Any) -> list[str]:
        return [task.name for task in await station.list_all(page_size=1, **filters)]

    assert await names() == [plain.name, batched.name, other.name, ended.name]
    assert await names(parent="deployments/other") == [other.name]
    assert await names(batch="b") == [batched.name, ended.name]
    assert await names(labels={"x": "1"}) == [batched.name, other.name]
    assert await names(labels={"x": "1", "y": "2"}) == [batched.name]
    assert await names(states=[Task.STATE_SUCCEEDED]) == [ended.name]
    assert await names(states=[Task.STATE_QUEUED], batch="b") == [batched.name]
    assert await names(states=[Task.STATE_CANCELLED]) == []
    await station.deliver()

    async def one_runs() -> bool:
        return await names(states=[Task.STATE_RUNNING]) == [plain.name]

    await eventually(one_runs)
    bad: list[dict[str, Any]] = [
        {"page_size": -1},
        {"page_token": "x"},
        {"batch": "B"},
        {"states": [99]},
        {"parent": "echo"},
    ]
    for filters in bad:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await station.stub.ListTasks(api.ListTasksRequest(**filters))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, filters


async def test_a_task_that_has_ended_and_not_left_the_queue_is_listed_once(
    station: TaskStation,
) -> None:
    task = await station.submit()
    ended = Task()
    ended.CopyFrom(task)
    ended.state = Task.STATE_CANCELLED
    ended.end_time.GetCurrentTime()
    await station.ledger.finish(ended)
    found = await station.list_all()
    assert [(t.name, t.state) for t in found] == [(task.name, Task.STATE_CANCELLED)]


async def test_pages_go_through_thousands(station: TaskStation) -> None:
    await submitted(station, 2500, batch="b")
    await submitted(station, 1, batch="c")
    found = await station.list_all(page_size=1000)
    assert len({task.name for task in found}) == 2501
    assert len(await station.list_all(page_size=1000, batch="c")) == 1


async def test_a_watch_tells_what_had_ended_and_then_each_as_it_ends(
    station: TaskStation,
) -> None:
    tasks = await in_batch(station, 30)
    for task in tasks[:10]:
        await station.end(task)
    request = api.WatchTasksRequest(parent=PARENT, batch="b")
    call = station.stub.WatchTasks(request, timeout=60)
    seen: list[str] = []
    async for answer in call:
        seen += [task.name for task in answer.tasks]
        assert all(task.result.id == task.name for task in answer.tasks)
        if answer.caught_up:
            break
    assert seen == [task.name for task in tasks[:10]]
    for task in tasks[10:]:
        await station.end(task)
    async for answer in call:
        seen += [task.name for task in answer.tasks]
        if len(seen) == 30:
            break
    assert seen == [task.name for task in tasks]
    call.cancel()


async def test_a_watch_goes_on_after_a_position(station: TaskStation) -> None:
    tasks = await in_batch(station, 20)
    for task in tasks[:12]:
        await station.end(task)
    first, position = await watched(station)
    assert [t.name for t in first] == [t.name for t in tasks[:12]]
    assert await watched(station, after_position=position) == ([], position)
    for task in tasks[12:]:
        await station.end(task)
    rest, _ = await watched(station, after_position=position, omit_results=True)
    assert [t.name for t in rest] == [t.name for t in tasks[12:]]
    assert not any(task.HasField("result") for task in rest)


async def test_an_empty_batch_is_caught_up_at_once(station: TaskStation) -> None:
    assert await watched(station) == ([], 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await station.stub.WatchTasks(api.WatchTasksRequest(parent=PARENT)).read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_watch_survives_kills_of_nats_and_tells_each_task_once(
    station: TaskStation,
) -> None:
    tasks = await in_batch(station, 300)
    call = station.stub.WatchTasks(api.WatchTasksRequest(parent=PARENT, batch="b"), timeout=150)
    seen: list[str] = []

    async def watch() -> None:
        async for answer in call:
            seen.extend(task.name for task in answer.tasks)
            if len(seen) >= len(tasks):
                break

    watching = asyncio.ensure_future(watch())
    for begin in (0, 100, 200):
        for task in tasks[begin : begin + 100]:
            await station.end(task)
        await asyncio.to_thread(station.nats.restart)
        await eventually(lambda: station.link.connected)
    await watching
    assert seen == [task.name for task in tasks]
    call.cancel()

    async def left_nothing() -> bool:
        info = await station.link.jetstream.stream_info(streams.ENDED)
        return info.state.consumer_count == 0

    await eventually(left_nothing, timeout_s=60)


async def test_a_watch_carries_results_of_all_sizes(station: TaskStation) -> None:
    tasks = await in_batch(station, 12)
    sizes = [10, INLINE_RESULT_BYTES - 100, 3 << 20] * 4
    for task, size in zip(tasks, sizes, strict=True):
        task.state = Task.STATE_SUCCEEDED
        task.end_time.GetCurrentTime()
        result = InferResponse(raw_output_contents=[b"x" * size])
        await station.ledger.finish(task, result.SerializeToString())
    seen, _ = await watched(station)
    assert [len(task.result.raw_output_contents[0]) for task in seen] == sizes


async def test_a_slow_reader_is_told_everything(station: TaskStation) -> None:
    tasks = await in_batch(station, 60)
    call = station.stub.WatchTasks(api.WatchTasksRequest(parent=PARENT, batch="b"), timeout=150)
    await call.read()
    for task in tasks:
        task.state = Task.STATE_SUCCEEDED
        task.end_time.GetCurrentTime()
        result = InferResponse(raw_output_contents=[b"x" * 200_000])
        await station.ledger.finish(task, result.SerializeToString())
    # 12 MB are in the stream by now, more than a watch may hold at once.
    seen: list[str] = []
    while len(seen) < 60:
        seen += [task.name for task in (await call.read()).tasks]
    assert seen == [task.name for task in tasks]
    call.cancel()


async def test_a_purge_forgets_what_is_asked_for_and_no_more(station: TaskStation) -> None:
    tasks = await in_batch(station, 6)
    outside = await station.submit()
    await station.end(tasks[0])
    await station.end(tasks[1], Task.STATE_CANCELLED)
    await station.end(outside)

    async def purge(**filters: Any) -> int:
        request = api.PurgeTasksRequest(parent=PARENT, **filters)
        answer = await station.stub.PurgeTasks(request, timeout=60)
        return int(answer.purged_count)

    assert await purge(batch="b", validate_only=True) == 2
    assert await purge(batch="b", states=[Task.STATE_CANCELLED]) == 1
    assert await purge(batch="b") == 1
    left = [task.name for task in await station.list_all()]
    assert left == [*(task.name for task in tasks[2:]), outside.name]
    assert await purge(states=[Task.STATE_QUEUED], validate_only=True) == 4
    assert await purge(states=[Task.STATE_QUEUED]) == 4
    assert await purge() == 1
    assert await station.list_all() == []
    for stream in (streams.TASKS, streams.ENDED):
        assert (await station.link.jetstream.stream_info(stream)).state.messages == 0


async def test_a_running_task_that_is_purged_does_not_come_back_with_a_result(
    station: TaskStation,
) -> None:
    task = await station.submit()
    await station.deliver()
    request = api.PurgeTasksRequest(parent=PARENT, states=[Task.STATE_QUEUED, Task.STATE_RUNNING])
    assert (await station.stub.PurgeTasks(request)).purged_count == 1
    # Nor if what was cancelled is purged, too.
    everything = api.PurgeTasksRequest(parent=PARENT, states=states.NEXT)
    assert (await station.stub.PurgeTasks(everything)).purged_count == 0
    assert not await station.end(task), "its replica writes too late"
    assert (await station.get(task.name)).state == Task.STATE_CANCELLED


async def test_a_purge_of_all_states_keeps_word_of_what_may_still_run(
    station: TaskStation,
) -> None:
    task = await station.submit(result_ttl=Duration(seconds=1))
    await station.deliver()
    request = api.PurgeTasksRequest(parent=PARENT, states=states.NEXT)
    assert (await station.stub.PurgeTasks(request)).purged_count == 1
    kept = await station.get(task.name)
    assert kept.state == Task.STATE_CANCELLED
    assert kept.expire_time.seconds - kept.end_time.seconds > task.attempt_timeout.seconds
    assert not await station.end(task), "its replica writes too late"
