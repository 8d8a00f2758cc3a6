"""A submitted task carries on the trace of the call that submitted it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.task_service import TaskStation, submission, task_station

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver, receiver.told_by("router"):
        yield receiver


@pytest.fixture
async def station(receiver: OtlpReceiver, tmp_path: Path) -> AsyncIterator[TaskStation]:
    async with task_station(tmp_path) as station:
        yield station


async def test_the_spans_of_a_submission_are_its_callers(
    station: TaskStation, receiver: OtlpReceiver
) -> None:
    call = station.stub.SubmitTask(submission(), metadata=[("traceparent", PARENT)])
    task = (await call).task
    assert task.trace_id == "a" * 32
    trailers = dict(await call.trailing_metadata())
    assert trailers["forebay-trace-id"] == "a" * 32
    wanted = {"forebay.v1.TaskService/SubmitTask", "publish task"}
    await eventually(lambda: set(receiver.trace("a" * 32)) == wanted)
    spans = {name: span for name, (_, span) in receiver.trace("a" * 32).items()}
    server, publish = spans["forebay.v1.TaskService/SubmitTask"], spans["publish task"]
    assert server.parent_span_id.hex() == "b" * 16
    assert publish.parent_span_id == server.span_id
    # What runs the task goes on from the publish.
    envelope = await station.envelope(task)
    assert envelope.traceparent.split("-")[1:3] == ["a" * 32, publish.span_id.hex()]


async def test_a_task_without_a_callers_trace_has_one_of_its_own(
    station: TaskStation, receiver: OtlpReceiver
) -> None:
    task = await station.submit()
    assert len(task.trace_id) == 32
    await eventually(lambda: "publish task" in receiver.trace(task.trace_id))
