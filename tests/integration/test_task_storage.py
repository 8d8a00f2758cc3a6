"""How tasks are kept, on a real nats-server: stored once, ended once, read in order."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.js.api import StreamConfig

from forebay.v1.envelope_pb2 import OUTCOME_OK
from forebay.v1.inference_pb2 import InferResponse
from forebay.v1.task_pb2 import Task, TaskAttempt
from forebay.v1.task_record_pb2 import CallbackEnvelope, DeadTask, TaskEnvelope, TaskProgress
from services.wire import names
from services.wire.instants import timestamp
from services.wire.limits import MAX_BODY_BYTES
from services.wire.nats_link import NatsLink
from services.wire.stored_publisher import (
    Stored,
    StreamFullError,
    StreamMissingError,
    SubjectTakenError,
)
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import INLINE_RESULT_BYTES, TaskLedger, task_ids, task_name
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.task_ledger import ledger_at


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def opened(server: NatsServer) -> AsyncIterator[tuple[TaskLedger, NatsLink]]:
    async with ledger_at(server.url) as opened:
        yield opened


@pytest.fixture
def ledger(opened: tuple[TaskLedger, NatsLink]) -> TaskLedger:
    return opened[0]


@pytest.fixture
def link(opened: tuple[TaskLedger, NatsLink]) -> NatsLink:
    return opened[1]


def envelope(task_id: str, deployment: str = "echo", batch: str = "") -> TaskEnvelope:
    task = Task(
        name=task_name(deployment, task_id),
        priority=Task.PRIORITY_NORMAL,
        batch=batch,
        expire_time=timestamp(time.time() + 100),
    )
    task.result_ttl.FromSeconds(1000)
    return TaskEnvelope(task_id=task_id, deployment=deployment, task=task, body=b"body")


def succeeded(task_id: str, deployment: str = "echo", batch: str = "") -> Task:
    task = envelope(task_id, deployment, batch).task
    task.state, task.outcome = Task.STATE_SUCCEEDED, OUTCOME_OK
    task.end_time.CopyFrom(timestamp(time.time()))
    return task


async def test_a_task_is_stored_once_under_its_id(ledger: TaskLedger) -> None:
    first = await ledger.enqueue(envelope("t1"))
    again = await ledger.enqueue(envelope("t1"))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.sequence == again.sequence
    message = await ledger.queued("echo", "t1")
    assert message is not None
    assert TaskEnvelope.FromString(message.data).body == b"body"
    assert abs(message.stored_s - time.time()) < 60
    assert await ledger.queued("other", "t1") is None


async def test_the_first_word_that_a_task_has_ended_is_the_one_that_counts(
    ledger: TaskLedger,
) -> None:
    cancelled = succeeded("t1", batch="b")
    cancelled.state = Task.STATE_CANCELLED
    words = await asyncio.gather(
        *(ledger.finish(task) for task in (succeeded("t1", batch="b"), cancelled) for _ in range(5))
    )
    assert sum(words) == 1
    ended = await ledger.ended("echo", "t1")
    assert ended is not None
    # Sent first on one connection, and so written first.
    assert ended.state == Task.STATE_SUCCEEDED
    assert ended.expire_time.seconds - ended.end_time.seconds == 1000


@pytest.mark.parametrize("size", [10, INLINE_RESULT_BYTES + 1000, 3 << 20])
async def test_a_result_comes_back_whatever_its_size(ledger: TaskLedger, size: int) -> None:
    result = InferResponse(raw_output_contents=[b"x" * size])
    assert await ledger.finish(succeeded("t1"), result.SerializeToString())
    ended = await ledger.ended("echo", "t1")
    assert ended is not None
    assert ended.result == result
    assert ended.result_size_bytes == result.ByteSize()
    bare = await ledger.ended("echo", "t1", with_result=False)
    assert bare is not None
    assert not bare.HasField("result")


async def test_of_two_large_results_the_first_end_has_its_own(ledger: TaskLedger) -> None:
    """Two replicas ran the task, since one of them was cut off for a while."""
    results = [InferResponse(raw_output_contents=[word * (1 << 20)]) for word in (b"a", b"bb")]
    words = await asyncio.gather(
        *(ledger.finish(succeeded("t1"), result.SerializeToString()) for result in results)
    )
    assert sorted(words) == [False, True]
    late = InferResponse(raw_output_contents=[b"c" * (3 << 20)])
    assert not await ledger.finish(succeeded("t1"), late.SerializeToString())
    ended = await ledger.ended("echo", "t1")
    assert ended is not None
    assert ended.result == results[words.index(True)]
    assert len(await ledger.reader.read(streams.RESULTS, subjects.result("echo", "t1"))) == 1


async def test_a_task_whose_result_has_gone_is_not_shown_with_an_empty_one(
    ledger: TaskLedger, link: NatsLink
) -> None:
    result = InferResponse(raw_output_contents=[b"x" * (1 << 20)])
    await ledger.finish(succeeded("t1"), result.SerializeToString())
    await link.jetstream.purge_stream(streams.RESULTS)
    assert await ledger.ended("echo", "t1") is None
    assert await ledger.ended("echo", "t1", with_result=False) is not None


async def test_a_task_that_ends_again_after_it_was_forgotten_is_called_back_again(
    ledger: TaskLedger,
) -> None:
    for second in (1, 2):
        task = succeeded("t1")
        task.callback_url, task.end_time.seconds = "http://host/", second
        await ledger.finish(task)
        await ledger.order_callback(task)
        await ledger.forget("echo", "t1")
    assert len(await ledger.reader.read(streams.CALLBACKS, subjects.CALLBACKS)) == 2


async def test_a_dead_letter_of_the_largest_request_goes_without_its_attempts(
    ledger: TaskLedger,
) -> None:
    dead = DeadTask(task=succeeded("t1"), envelope=envelope("t1"))
    dead.envelope.body = b"x" * MAX_BODY_BYTES
    dead.task.attempts.extend(TaskAttempt(error="x" * 10_000) for _ in range(10))
    await ledger.bury(dead)
    kept = await ledger.dead("echo", "t1")
    assert kept is not None
    assert kept.envelope == dead.envelope
    assert not kept.task.attempts


def threads_of(pid: int) -> set[str]:
    """The states that threads of a process are in, as letters; see proc(5)."""
    texts = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {text.rpartition(")")[2].split()[0] for text in texts}


async def test_a_server_that_does_not_answer_is_waited_for_side_by_side(
    ledger: TaskLedger, server: NatsServer
) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # Until then a thread that runs on may answer.
        await eventually(lambda: threads_of(server.pid) == {"T"})
        began_s = time.monotonic()
        made = await asyncio.gather(
            *(ledger.ensure_consumer(f"d{number}", 2) for number in range(4)),
            return_exceptions=True,
        )
        took_s = time.monotonic() - began_s
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert all(isinstance(error, nats.errors.TimeoutError) for error in made)
    assert took_s < 15, "one wait is 5 s, and four are 20 s"


async def test_a_callback_is_ordered_once(ledger: TaskLedger) -> None:
    task = succeeded("t1")
    task.callback_url = "http://host/"
    await ledger.finish(task, InferResponse(model_name="echo").SerializeToString())
    ended = await ledger.ended("echo", "t1")
    assert ended is not None
    await ledger.order_callback(ended)
    orders = await ledger.reader.read(streams.CALLBACKS, subjects.callback("echo", "t1"))
    assert len(orders) == 1
    order = CallbackEnvelope.FromString(orders[0].data)
    assert order.task.state == Task.STATE_SUCCEEDED
    assert not order.task.HasField("result")


async def test_what_is_removed_from_the_queue_is_gone_and_may_be_removed_again(
    ledger: TaskLedger,
) -> None:
    stored = await ledger.enqueue(envelope("t1"))
    for _ in range(2):
        await ledger.remove_queued(stored.sequence)
        assert await ledger.queued("echo", "t1") is None


async def test_a_forgotten_task_leaves_nothing(ledger: TaskLedger, link: NatsLink) -> None:
    large = InferResponse(raw_output_contents=[b"x" * (INLINE_RESULT_BYTES + 1)])
    for forget_all in (True, False):
        task = succeeded("t1")
        task.state = Task.STATE_FAILED
        task.attempts.append(TaskAttempt(error="e"))
        await ledger.keep_progress("echo", "t1", TaskProgress(failed_count=1))
        await ledger.bury(DeadTask(task=task, envelope=envelope("t1")))
        assert await ledger.finish(task, large.SerializeToString())
        if forget_all:
            await ledger.forget("echo", "t1")
        else:
            ended = await ledger.ended("echo", "t1")
            assert ended is not None
            await ledger.forget_ended(ended)
        every = (streams.ENDED, streams.RESULTS, streams.DEAD, streams.PROGRESS)
        for stream in every:
            info = await link.jetstream.stream_info(stream)
            assert info.state.messages == 0, stream


async def test_progress_and_dead_letters_are_kept(ledger: TaskLedger) -> None:
    assert await ledger.progress("echo", "t1") == TaskProgress()
    assert await ledger.dead("echo", "t1") is None
    await ledger.keep_progress("echo", "t1", TaskProgress(failed_count=1))
    await ledger.keep_progress("echo", "t1", TaskProgress(failed_count=2))
    assert (await ledger.progress("echo", "t1")).failed_count == 2
    await ledger.forget_progress("echo", "t1")
    assert await ledger.progress("echo", "t1") == TaskProgress()
    dead = DeadTask(task=succeeded("t1"), envelope=envelope("t1"))
    await ledger.bury(dead)
    assert await ledger.dead("echo", "t1") == dead


async def test_many_tasks_at_once_make_one_consumer_and_keep_their_order(
    ledger: TaskLedger, link: NatsLink
) -> None:
    await asyncio.gather(*(ledger.enqueue(envelope(f"t{n}")) for n in range(300)))
    info = await link.jetstream.stream_info(streams.TASKS)
    assert (info.state.messages, info.state.consumer_count) == (300, 1)
    found: list[str] = []
    sequence = 1
    while batch := await ledger.reader.read(
        streams.TASKS, subjects.lane("echo", 2), sequence, count=70
    ):
        assert len(batch) <= 70
        found += [subjects.parse_task(message.subject).task_id for message in batch]
        sequence = batch[-1].sequence + 1
    assert found == [f"t{n}" for n in range(300)]


async def test_a_read_is_bounded_by_bytes_and_filtered(ledger: TaskLedger) -> None:
    for n in range(6):
        made = envelope(f"t{n}", batch="odd" if n % 2 else "even")
        made.body = b"x" * 100_000
        await ledger.enqueue(made)
    few = await ledger.reader.read(streams.TASKS, subjects.any_task("echo"), max_bytes=150_000)
    assert 1 <= len(few) <= 2
    odd = await ledger.reader.read(streams.TASKS, subjects.any_task("echo", "*", "odd"))
    assert [subjects.parse_task(m.subject).task_id for m in odd] == ["t1", "t3", "t5"]
    assert await ledger.reader.read(streams.TASKS, subjects.any_task("none")) == []
    wanted = [subjects.any_task("echo", f"t{n}") for n in (1, 9, 4)]
    each = await ledger.reader.last_of_each(streams.TASKS, wanted)
    assert [subjects.parse_task(m.subject).task_id for m in each] == ["t1", "t4"]
    assert await ledger.reader.last_of_each(streams.TASKS, []) == []


async def test_a_stream_that_is_not_there_is_told(ledger: TaskLedger, link: NatsLink) -> None:
    with pytest.raises(StreamMissingError):
        await ledger.publisher.publish("nobody.listens", b"x")
    with pytest.raises(nats.errors.NoRespondersError):
        await ledger.reader.read("NOWHERE", ">")
    await link.jetstream.delete_stream(streams.ENDED)
    assert await ledger.finish(succeeded("t1")), "the stream is made again"


async def test_a_full_stream_and_a_taken_subject_are_told_apart(
    ledger: TaskLedger, link: NatsLink
) -> None:
    await link.jetstream.update_stream(
        StreamConfig(**{**await _config(link, streams.TASKS), "max_bytes": 3000})
    )
    told = [ledger.enqueue(envelope(f"t{n}")) for n in range(100)]
    results = await asyncio.gather(*told, return_exceptions=True)
    refused = [result for result in results if not isinstance(result, Stored)]
    assert 0 < len(refused) < 100
    assert {type(error) for error in refused} == {StreamFullError}
    assert "maximum bytes" in str(refused[0])
    await ledger.finish(succeeded("t1"))
    with pytest.raises(SubjectTakenError):
        await ledger.publisher.publish(subjects.ended("echo", "t1", ""), b"x")
    await streams.ensure(link.jetstream)
    assert (await _config(link, streams.TASKS))["max_bytes"] == 3000, "sizes stay as they are"


async def _config(link: NatsLink, stream: str) -> dict[str, Any]:
    config = (await link.jetstream.stream_info(stream)).config
    return {key: value for key, value in vars(config).items() if value is not None}


async def test_what_was_stored_outlives_a_kill_and_a_publish_across_it_is_stored_once(
    server: NatsServer,
) -> None:
    async with ledger_at(server.url) as (ledger, link):
        for n in range(50):
            await ledger.enqueue(envelope(f"t{n}"))
        under_way = [asyncio.ensure_future(ledger.enqueue(envelope(f"u{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.restart)
        told = await asyncio.gather(*under_way, return_exceptions=True)
        await eventually(lambda: link.connected)
        for n, result in enumerate(told):
            if isinstance(result, BaseException):
                assert isinstance(result, nats.errors.Error), result
                await ledger.enqueue(envelope(f"u{n}"))
        info = await link.jetstream.stream_info(streams.TASKS)
        assert info.state.messages == 100


def test_the_name_of_a_task_says_where_it_is() -> None:
    assert task_ids(task_name("echo", "t1")) == ("echo", "t1")
    for name in ("", "deployments/echo", "deployments/echo/tasks/", "deployments/A/tasks/t1", "x"):
        with pytest.raises(names.InvalidNameError):
            task_ids(name)
