"""Tasks as a quick client of any language submits them: grouped messages on one stream."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc.aio

from forebay.v1.envelope_pb2 import OUTCOME_OK
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.task_pb2 import (
    SubmitTaskRequest,
    SubmitTasksRequest,
    Task,
    WatchTasksRequest,
)
from forebay.v1.task_pb2_grpc import TaskServiceStub
from services.wire.channels import CHANNEL_OPTIONS

GROUP = 100
TIMEOUT_S = 300.0


def request(deployment: str, payload_bytes: int = 128) -> InferRequest:
    """One inference of the benchmark's model."""
    made = InferRequest(model_name=deployment)
    made.inputs.add(name="INPUT", datatype="UINT8", shape=[payload_bytes])
    made.raw_input_contents.append(bytes(payload_bytes))
    return made


async def submit(address: str, deployment: str, batch: str, count: int) -> float:
    """Submits tasks as one batch; returns how long until the last was stored, in seconds.

    Raises:
        RuntimeError: if one is refused.
    """
    body = request(deployment)

    async def groups() -> AsyncIterator[SubmitTasksRequest]:
        for first in range(0, count, GROUP):
            group = SubmitTasksRequest()
            for index in range(first, min(first + GROUP, count)):
                task = Task(batch=batch, batch_index=index)
                task.result_ttl.FromSeconds(600)
                group.tasks.append(SubmitTaskRequest(request=body, task=task))
            yield group

    stored = 0
    began_s = time.monotonic()
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call = TaskServiceStub(channel).SubmitTasks(groups(), timeout=TIMEOUT_S)
        async for answer in call:
            for one in answer.submitted:
                if one.outcome != OUTCOME_OK:
                    raise RuntimeError(f"task {one.index} was refused: {one.message}")
                stored += 1
    if stored != count:
        raise RuntimeError(f"{stored} of {count} tasks were confirmed")
    return time.monotonic() - began_s


async def until_ended(address: str, deployment: str, batch: str, count: int) -> dict[str, int]:
    """Waits until all tasks of a batch have ended; returns how many by state."""
    seen: dict[str, int] = {}
    names: set[str] = set()
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        question = WatchTasksRequest(
            parent=f"deployments/{deployment}", batch=batch, omit_results=True
        )
        call = TaskServiceStub(channel).WatchTasks(question, timeout=TIMEOUT_S)
        async for answer in call:
            for task in answer.tasks:
                if task.name in names:
                    raise RuntimeError(f"{task.name} ended twice")
                names.add(task.name)
                word = Task.State.Name(task.state).removeprefix("STATE_").lower()
                seen[word] = seen.get(word, 0) + 1
            if len(names) >= count:
                call.cancel()
                return seen
    raise RuntimeError(f"the watch ended after {len(names)} of {count} tasks")


async def complete(address: str, deployment: str, batch: str, count: int) -> float:
    """Submits tasks and waits until all have succeeded; returns the time in seconds.

    Raises:
        RuntimeError: if one does not succeed.
    """
    began_s = time.monotonic()
    watching = asyncio.create_task(until_ended(address, deployment, batch, count))
    await submit(address, deployment, batch, count)
    seen = await watching
    if seen != {"succeeded": count}:
        raise RuntimeError(f"of {count} tasks: {seen}")
    return time.monotonic() - began_s
