"""Calls that stay open: bounded, and ended when their router stops."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from forebay.v1 import task_pb2 as api
from forebay.v1.envelope_pb2 import OUTCOME_OK
from forebay.v1.task_pb2_grpc import TaskServiceStub
from services.router.main import serve
from services.router.settings import RouterSettings
from services.router.tasks import notices, open_streams
from services.wire.channels import open_channel
from services.wire.tasks import subjects
from tests.support.eventually import eventually
from tests.support.serving import serving
from tests.support.task_service import PARENT, TaskStation, submission, task_station


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[TaskStation]:
    async with task_station(tmp_path) as station:
        yield station


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    async def rest() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest()
    return caught.value


async def test_a_router_that_stops_ends_its_open_calls_and_says_where_to_go_on(
    station: TaskStation, tmp_path: Path
) -> None:
    task = await station.submit(batch="b")
    settings = {"nats_url": station.nats.url, "listen": "127.0.0.1:0", "drain_s": 600}
    async with asyncio.timeout(120):
        async with serving(serve, RouterSettings, tmp_path / "r.json", **settings) as addresses:
            channel = open_channel(addresses["router"])
            stub = TaskServiceStub(channel)

            async def has_begun() -> bool:
                # It listens before it is connected and has read which deployments there are.
                try:
                    await stub.SubmitTask(submission())
                except grpc.aio.AioRpcError:
                    return False
                return True

            await eventually(has_begun)
            wait = stub.WaitTask(api.WaitTaskRequest(name=task.name))
            watch = stub.WatchTasks(api.WatchTasksRequest(parent=PARENT, batch="b"))
            assert (await wait.read()).task.name == task.name
            submit = stub.SubmitTasks()
            await submit.write(api.SubmitTasksRequest(tasks=[submission()]))
            assert (await submit.read()).submitted[0].outcome == OUTCOME_OK
            assert (await watch.read()).caught_up
    for call in (wait, watch, submit):
        error = await refusal(call)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in (error.details() or "")
    await channel.close()


async def test_open_calls_are_bounded(station: TaskStation) -> None:
    task = await station.submit()
    calls = []
    for _ in range(open_streams.MAX_STREAMS_OF_TENANT):
        call = station.stub.WaitTask(api.WaitTaskRequest(name=task.name))
        calls.append(call)
    await asyncio.gather(*(call.read() for call in calls))
    error = await refusal(station.stub.WaitTask(api.WaitTaskRequest(name=task.name)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "WatchTasks call" in (error.details() or "")
    request = api.WatchTasksRequest(parent=PARENT, batch="b", until_now=True)
    others = station.stub.WatchTasks(request, metadata=[("forebay-tenant", "another")])
    assert (await others.read()).caught_up, "one tenant does not keep others out"
    for call in calls:
        call.cancel()

    async def is_open_again() -> bool:
        one = station.stub.WaitTask(api.WaitTaskRequest(name=task.name))
        try:
            return bool((await one.read()).task.name == task.name)
        except grpc.aio.AioRpcError:
            return False
        finally:
            one.cancel()

    await eventually(is_open_again)


async def test_a_call_that_is_dropped_gives_its_room_back(station: TaskStation) -> None:
    """However often: the room for tasks on their way is one for all calls."""
    large = submission(word=b"x" * (4 << 20))
    for _ in range(12):
        call = station.stub.SubmitTasks()
        for _ in range(2):
            await call.write(api.SubmitTasksRequest(tasks=[large]))
        call.cancel()
    told = await station.submit_many([large] * 3, group=1)
    assert {each.outcome for each in told} == {OUTCOME_OK}


async def test_replicas_are_told_of_many_tasks_with_few_words(station: TaskStation) -> None:
    loop = asyncio.get_running_loop()
    told_s: list[float] = []
    await station.link.client.subscribe_direct(
        subjects.waiting("echo"), lambda *_: told_s.append(loop.time())
    )
    await station.link.client.flush()
    began_s = loop.time()
    await station.submit_many([submission()] * 1000)
    took_s = loop.time() - began_s
    await eventually(lambda: told_s)
    await station.link.client.flush()
    assert 1 <= len(told_s) <= took_s / notices.LEAST_PAUSE_S + 2
