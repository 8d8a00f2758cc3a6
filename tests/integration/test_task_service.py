"""TaskService of a real router on a real nats-server; the test plays the agents."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from forebay.v1 import task_pb2 as api
from forebay.v1.envelope_pb2 import (
    OUTCOME_INTERNAL,
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_NOT_FOUND,
    OUTCOME_OK,
)
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.task_pb2 import Task, TaskAttempt
from forebay.v1.task_record_pb2 import DeadTask, TaskEvent, TaskProgress
from services.wire.instants import timestamp
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import task_ids
from tests.support.eventually import eventually
from tests.support.task_service import PARENT, TaskStation, submission, task_station

Code = grpc.StatusCode


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[TaskStation]:
    async with task_station(tmp_path) as station:
        yield station


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.trailing_metadata()["forebay-trace-id"]
    return caught.value


async def test_a_submitted_task_waits_for_a_replica(station: TaskStation) -> None:
    heard: list[bytes] = []
    await station.link.client.subscribe_direct(
        subjects.waiting("echo"), lambda _, __, data, ___: heard.append(data)
    )
    await station.link.client.flush()
    task = await station.submit(priority=Task.PRIORITY_HIGH, labels={"who": "me"})
    assert task.state == Task.STATE_QUEUED
    assert await station.get(task.name) == task
    envelope = await station.envelope(task)
    assert envelope.task == task
    assert InferRequest.FromString(envelope.body) == submission().request
    await eventually(lambda: heard == [b"1"])


async def test_a_task_is_running_once_it_was_delivered_and_waits_between_attempts(
    station: TaskStation,
) -> None:
    task = await station.submit()
    await station.deliver()

    async def runs() -> bool:
        return (await station.get(task.name)).state == Task.STATE_RUNNING

    await eventually(runs)
    later = await station.submit()
    assert (await station.get(later.name)).state == Task.STATE_QUEUED
    soon_s = task.create_time.seconds + 1000.0
    progress = TaskProgress(failed_count=1, next_attempt_time=timestamp(soon_s))
    progress.attempts.append(TaskAttempt(error="oops", start_time=timestamp(5), node="n"))
    await station.ledger.keep_progress(*task_ids(task.name), progress)
    waiting = await station.get(task.name)
    assert waiting.state == Task.STATE_QUEUED
    assert waiting.next_attempt_time.seconds == int(soon_s)
    assert (waiting.attempt_count, waiting.error, waiting.attempts[0].node) == (1, "oops", "n")


async def test_an_unknown_deployment_is_told_which_there_are(station: TaskStation) -> None:
    error = await refusal(station.submit(model="nope"))
    assert error.code() == Code.NOT_FOUND
    assert "'nope' is not found; there is no deployment of that name (deployed: echo, other)" in (
        error.details() or ""
    )
    error = await refusal(station.submit(model="A b"))
    assert error.code() == Code.INVALID_ARGUMENT


async def test_a_bad_option_is_refused_with_what_is_legal(station: TaskStation) -> None:
    error = await refusal(station.submit(max_retries=99))
    assert error.code() == Code.INVALID_ARGUMENT
    assert "task.max_retries is 99; legal is 0 to 20" in (error.details() or "")


async def test_the_same_key_and_content_is_one_task_for_life(station: TaskStation) -> None:
    first = await station.submit(idempotency_key="k")
    again = await station.submit(idempotency_key="k")
    assert again.name == first.name
    await station.end(first)
    ended = await station.submit(idempotency_key="k")
    assert (ended.name, ended.state) == (first.name, Task.STATE_SUCCEEDED)
    info = await station.link.jetstream.stream_info(streams.TASKS)
    assert info.state.messages == 0


@pytest.mark.parametrize("has_ended", [False, True])
async def test_another_content_under_a_key_already_exists(
    station: TaskStation, has_ended: bool
) -> None:
    task = await station.submit(idempotency_key="k")
    if has_ended:
        await station.end(task)
    for other in ({"word": b"other"}, {"labels": {"a": "b"}}):
        error = await refusal(station.submit(idempotency_key="k", **other))
        assert error.code() == Code.ALREADY_EXISTS
        assert task.name in (error.details() or "")
    elsewhere = await station.submit(tenant="acme", idempotency_key="k", word=b"other")
    assert elsewhere.name != task.name


async def test_the_same_key_at_the_same_time_is_one_task(station: TaskStation) -> None:
    tasks = await asyncio.gather(*(station.submit(idempotency_key="k") for _ in range(20)))
    assert len({task.name for task in tasks}) == 1
    info = await station.link.jetstream.stream_info(streams.TASKS)
    assert info.state.messages == 1


async def test_of_several_contents_under_one_key_at_the_same_time_one_is_stored(
    station: TaskStation,
) -> None:
    words = [b"one", b"two", b"three"] * 5
    told = await asyncio.gather(
        *(station.submit(idempotency_key="k", word=word) for word in words),
        return_exceptions=True,
    )
    tasks = [each for each in told if isinstance(each, Task)]
    refused = [each for each in told if isinstance(each, grpc.aio.AioRpcError)]
    assert (len(tasks), len(refused)) == (5, 10)
    assert {error.code() for error in refused} == {Code.ALREADY_EXISTS}
    assert len({(task.name, task.content_digest) for task in tasks}) == 1
    info = await station.link.jetstream.stream_info(streams.TASKS)
    assert info.state.messages == 1


async def test_the_first_content_of_a_position_stands(station: TaskStation) -> None:
    first = await station.submit(batch="b", batch_index=1)
    again = await station.submit(batch="b", batch_index=1, word=b"another content")
    assert again == first


@pytest.mark.parametrize("options", [{"idempotency_key": "k"}, {"batch": "b", "batch_index": 3}])
async def test_a_purged_task_can_be_submitted_again_at_once(
    station: TaskStation, options: dict[str, Any]
) -> None:
    for _ in range(3):
        task = await station.submit(**options)
        assert (await station.envelope(task)).task_id == task_ids(task.name)[1]
        request = api.PurgeTasksRequest(parent=PARENT, states=[Task.STATE_QUEUED])
        assert (await station.stub.PurgeTasks(request)).purged_count == 1
        assert (await refusal(station.get(task.name))).code() == Code.NOT_FOUND


async def test_a_full_queue_says_what_is_full_and_when_to_try_again(station: TaskStation) -> None:
    await station.limit(streams.TASKS, 4000)
    told = await station.submit_many(submission() for _ in range(60))
    assert {each.outcome for each in told[:2]} == {OUTCOME_OK}
    assert "the queue of tasks is full" in told[-1].message
    error = await refusal(station.submit(idempotency_key="k"))
    assert error.code() == Code.RESOURCE_EXHAUSTED
    assert streams.TASKS in (error.details() or "")
    trailers = error.trailing_metadata()
    assert int(trailers["grpc-retry-pushback-ms"]) > 0
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
    await station.limit(streams.TASKS, 1 << 20)
    other = await station.submit(idempotency_key="k", word=b"what was refused binds nobody")
    assert other.state == Task.STATE_QUEUED


async def test_many_are_told_apart_by_index_and_one_bad_one_stops_nobody(
    station: TaskStation,
) -> None:
    wanted = [submission(batch="b", batch_index=n) for n in range(500)]
    wanted[7] = submission(max_retries=-1)
    wanted[300] = submission(model="nope")
    told = await station.submit_many(wanted)
    outcomes = {each.index: each.outcome for each in told if each.outcome != OUTCOME_OK}
    assert outcomes == {7: OUTCOME_INVALID_ARGUMENT, 300: OUTCOME_NOT_FOUND}
    assert "max_retries" in told[7].message
    assert not told[7].name
    names = [each.name for each in told if each.name]
    assert len(set(names)) == 498
    again = await station.submit_many(wanted[:7])
    assert [each.name for each in again] == names[:7]
    info = await station.link.jetstream.stream_info(streams.TASKS)
    assert info.state.messages == 498


async def test_a_message_of_too_many_tasks_is_refused(station: TaskStation) -> None:
    call = station.submit_many([submission()] * 1001, group=1001)
    error = await refusal(call)
    assert error.code() == Code.INVALID_ARGUMENT
    assert "1001 tasks; at most 1000" in (error.details() or "")


async def test_tasks_survive_the_kill_of_nats_while_they_are_submitted(
    station: TaskStation,
) -> None:
    submitting = asyncio.ensure_future(
        station.submit_many((submission(batch="b", batch_index=n) for n in range(3000)), 10)
    )

    async def some_are_stored() -> bool:
        info = await station.link.jetstream.stream_info(streams.TASKS)
        return bool(info.state.messages >= 100)

    await eventually(some_are_stored)
    await asyncio.to_thread(station.nats.restart)
    told = await submitting
    assert {each.outcome for each in told} == {OUTCOME_OK}
    await eventually(lambda: station.link.connected)
    info = await station.link.jetstream.stream_info(streams.TASKS)
    assert info.state.messages == 3000


async def test_an_unreachable_queue_says_how_to_repeat(station: TaskStation) -> None:
    await station.submit()
    await asyncio.to_thread(station.nats.stop)
    error = await refusal(station.submit(idempotency_key="k"))
    assert error.code() == Code.UNAVAILABLE
    assert "same idempotency_key" in (error.details() or "")
    station.nats.start()
    await eventually(lambda: station.link.connected)


async def test_a_wait_tells_each_change_and_ends_with_the_result(station: TaskStation) -> None:
    task = await station.submit()
    call = station.stub.WaitTask(api.WaitTaskRequest(name=task.name), timeout=60)
    assert (await call.read()).task == task
    event = TaskEvent(state=Task.STATE_RUNNING, attempt=1, event_time=timestamp(7))
    subject = subjects.event(*task_ids(task.name))
    await station.link.client.publish(subject, event.SerializeToString())
    running = (await call.read()).task
    assert (running.state, running.start_time.seconds) == (Task.STATE_RUNNING, 7)
    await station.end(task)
    ended = (await call.read()).task
    assert ended.state == Task.STATE_SUCCEEDED
    assert ended.result.id == task.name
    assert await call.read() is grpc.aio.EOF


async def test_a_wait_for_what_has_ended_or_is_not_there_ends_at_once(
    station: TaskStation,
) -> None:
    task = await station.submit()
    await station.end(task)
    request = api.WaitTaskRequest(name=task.name)
    told = [each.task.state async for each in station.stub.WaitTask(request)]
    assert told == [Task.STATE_SUCCEEDED]
    call = station.stub.WaitTask(request, metadata=[("forebay-tenant", "acme")])
    assert (await refusal(call.read())).code() == Code.NOT_FOUND


async def test_a_wait_goes_on_across_a_kill_of_nats(station: TaskStation) -> None:
    task = await station.submit()
    call = station.stub.WaitTask(api.WaitTaskRequest(name=task.name), timeout=90)
    await call.read()
    await asyncio.to_thread(station.nats.restart)
    await eventually(lambda: station.link.connected)
    await station.end(task)
    last = (await call.read()).task
    assert last.state == Task.STATE_SUCCEEDED
    assert await call.read() is grpc.aio.EOF


async def test_a_task_whose_time_is_over_is_expired_by_who_looks(station: TaskStation) -> None:
    task = await station.submit(ttl=Duration(seconds=1), callback_url="http://host/")

    async def has_expired() -> bool:
        return (await station.get(task.name)).state == Task.STATE_EXPIRED

    await eventually(has_expired)
    ended = await station.ledger.ended(*task_ids(task.name))
    assert ended is not None
    assert "not ended within its ttl, 1 s" in ended.error

    async def has_left_the_queue() -> bool:
        # The end is told as soon as it is written.
        orders = await station.ledger.reader.read(
            streams.CALLBACKS, subjects.callback(*task_ids(task.name))
        )
        return len(orders) == 1 and await station.ledger.queued(*task_ids(task.name)) is None

    await eventually(has_left_the_queue)


async def test_a_cancelled_task_never_runs(station: TaskStation) -> None:
    told: list[bytes] = []
    await station.link.client.subscribe_direct(
        subjects.cancel("echo"), lambda _, __, data, ___: told.append(data)
    )
    await station.link.client.flush()
    task = await station.submit()
    request = api.CancelTaskRequest(name=task.name)
    cancelled = (await station.stub.CancelTask(request)).task
    assert cancelled.state == Task.STATE_CANCELLED
    assert await station.ledger.queued(*task_ids(task.name)) is None
    assert (await station.get(task.name)).state == Task.STATE_CANCELLED
    assert not await station.end(task), "a late result is dropped"
    assert (await station.stub.CancelTask(request)).task.end_time == cancelled.end_time
    await eventually(lambda: told == [task_ids(task.name)[1].encode()])


async def test_a_task_that_has_ended_stays_as_it_ended(station: TaskStation) -> None:
    task = await station.submit()
    await station.end(task)
    answer = await station.stub.CancelTask(api.CancelTaskRequest(name=task.name))
    assert answer.task.state == Task.STATE_SUCCEEDED


async def test_nobody_sees_or_touches_another_tenants_tasks(station: TaskStation) -> None:
    task = await station.submit(tenant="acme", batch="b")
    metadata = [("forebay-tenant", "other")]
    stub = station.stub
    for call in (
        stub.GetTask(api.GetTaskRequest(name=task.name), metadata=metadata),
        stub.CancelTask(api.CancelTaskRequest(name=task.name), metadata=metadata),
        stub.RetryTask(api.RetryTaskRequest(name=task.name), metadata=metadata),
    ):
        assert (await refusal(call)).code() == Code.NOT_FOUND
    assert await station.list_all("other") == []
    purge = api.PurgeTasksRequest(parent=PARENT, states=[Task.STATE_QUEUED, Task.STATE_SUCCEEDED])
    assert (await stub.PurgeTasks(purge, metadata=metadata)).purged_count == 0
    await station.end(task)
    assert (await stub.PurgeTasks(purge, metadata=metadata)).purged_count == 0
    watch = api.WatchTasksRequest(parent=PARENT, batch="b", until_now=True)
    seen = [t async for r in stub.WatchTasks(watch, metadata=metadata) for t in r.tasks]
    assert seen == []
    assert [t.name for t in await station.list_all("acme")] == [task.name]
    error = await refusal(
        stub.ListTasks(api.ListTasksRequest(), metadata=[("forebay-tenant", "A")])
    )
    assert error.code() == Code.INVALID_ARGUMENT


async def test_a_failed_task_is_retried_from_its_dead_letter(station: TaskStation) -> None:
    task = await station.submit(batch="b", batch_index=4, max_retries=1, labels={"a": "b"})
    request = api.RetryTaskRequest(name=task.name)
    early = await refusal(station.stub.RetryTask(request))
    assert early.code() == Code.FAILED_PRECONDITION
    assert "is queued" in (early.details() or "")
    envelope = await station.envelope(task)
    failed = Task()
    failed.CopyFrom(task)
    failed.state, failed.outcome, failed.error = Task.STATE_FAILED, OUTCOME_INTERNAL, "oops"
    await station.ledger.bury(DeadTask(task=failed, envelope=envelope))
    await station.end(task, Task.STATE_FAILED)
    new = (await station.stub.RetryTask(request)).task
    assert new.retry_of == task.name != new.name
    assert (new.batch, new.batch_index, new.max_retries) == ("b", 4, 1)
    assert (await station.envelope(new)).body == envelope.body
    retries = [station.stub.RetryTask(request) for _ in range(5)]
    assert {(await retry).task.name for retry in retries} == {new.name}, "it is retried once"
    await station.end(new)
    again = (await station.stub.RetryTask(request)).task
    assert (again.name, again.state) == (new.name, Task.STATE_SUCCEEDED)
    await station.link.jetstream.purge_stream(streams.DEAD)
    late = await refusal(station.stub.RetryTask(request))
    assert late.code() == Code.FAILED_PRECONDITION
    assert "dead letter" in (late.details() or "")
    none = await refusal(station.stub.RetryTask(api.RetryTaskRequest(name=f"{PARENT}/tasks/t")))
    assert none.code() == Code.NOT_FOUND


@pytest.mark.parametrize("name", ["", "deployments/echo", "deployments/echo/tasks/A", "x/y"])
async def test_what_names_no_task_is_refused(station: TaskStation, name: str) -> None:
    error = await refusal(station.stub.GetTask(api.GetTaskRequest(name=name)))
    assert error.code() == Code.INVALID_ARGUMENT
