"""What becomes of tasks while every part of the mesh is killed under them."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc.aio
import numpy as np
import psutil
import pytest

import forebay
from forebay.v1.task_pb2 import ListTasksRequest, Task, WatchTasksRequest
from forebay.v1.task_pb2_grpc import TaskServiceStub
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp

TASKS = 5_000
MANY = 10_000
KILLERS_TOGETHER = 2
KILLER_EVERY = 200
TIMEOUT_S = 900


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("task-faults")
    flags = ("--nodes", "2", "--slots", "1", "--ack-wait-s", "3")
    with ForebayUp(directory / "state", *flags) as up:
        up.forebay(
            "deploy",
            write_chaos(directory, replicas=2, max_ongoing_requests=8, request_timeout_s=30),
        ).ok()
        yield up


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


def kill_triton(mesh: ForebayUp) -> None:
    """Kills one of the mesh's Tritons, if there is one at the moment."""
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["name"] == "tritonserver" and str(mesh.state_dir) in line:
            os.kill(process.pid, signal.SIGKILL)
            return


def kill(mesh: ForebayUp, name: str) -> Callable[[], None]:
    return lambda: mesh.kill(name)


async def ended(mesh: ForebayUp, batch: str) -> dict[str, Task]:
    """Tasks of a batch that have ended, by name."""
    found: dict[str, Task] = {}
    async with grpc.aio.insecure_channel(mesh.mesh["router"]) as channel:
        question = WatchTasksRequest(parent="deployments/chaos", batch=batch, until_now=True)
        async for answer in TaskServiceStub(channel).WatchTasks(question, timeout=60):
            for task in answer.tasks:
                assert task.name not in found, f"{task.name} ended twice"
                found[task.name] = task
    return found


async def waiting(mesh: ForebayUp, batch: str) -> list[str]:
    """Tasks of a batch that wait or run."""
    async with grpc.aio.insecure_channel(mesh.mesh["router"]) as channel:
        question = ListTasksRequest(
            parent="deployments/chaos",
            batch=batch,
            states=[Task.STATE_QUEUED, Task.STATE_RUNNING],
            page_size=1000,
        )
        answer = await TaskServiceStub(channel).ListTasks(question, timeout=60)
    return [task.name for task in answer.tasks]


async def map_all(
    mesh: ForebayUp, words: list[str], batch: str, seen: list[int], **options: Any
) -> list[Any]:
    results: list[Any] = []

    async def inputs() -> AsyncIterator[dict[str, np.ndarray]]:
        for word in words:
            yield do(word)

    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        mapped = client.map(
            "chaos", inputs(), batch=batch, return_exceptions=True, max_in_flight=500, **options
        )
        async for result in mapped:
            results.append(result)
            seen[0] = len(results)
    return results


def said(result: Any) -> str:
    assert not isinstance(result, BaseException), repr(result)
    word: bytes = result["SAID"][0]
    return word.decode()


@pytest.mark.timeout(TIMEOUT_S)
async def test_every_task_ends_once_whatever_is_killed(mesh: ForebayUp) -> None:
    words = [f"say {index}" for index in range(TASKS)]
    seen = [0]
    mapping = asyncio.create_task(map_all(mesh, words, "killed", seen))
    parts: list[Callable[[], None]] = [
        kill(mesh, "router"),
        kill(mesh, "node-1"),
        lambda: kill_triton(mesh),
        kill(mesh, "autoscaler"),
        kill(mesh, "nats"),
    ]

    def all_at_once() -> None:
        for part in parts:
            part()

    for number, strike in enumerate([*parts, all_at_once], start=1):
        # Each falls in the middle of the work: a further part of the tasks has come back.
        wanted = number * TASKS // 8

        async def has_come_so_far(wanted: int = wanted) -> bool:
            return seen[0] >= wanted or mapping.done()

        await eventually(has_come_so_far, timeout_s=TIMEOUT_S / 2)
        assert not mapping.done(), "the work was over before everything was killed"
        strike()
    results = await mapping
    assert [said(result) for result in results] == words
    tasks = await ended(mesh, "killed")
    assert len(tasks) == TASKS
    assert {task.state for task in tasks.values()} == {Task.STATE_SUCCEEDED}

    async def nothing_waits() -> bool:
        return await waiting(mesh, "killed") == []

    await eventually(nothing_waits, timeout_s=60)


@pytest.mark.timeout(TIMEOUT_S)
async def test_exactly_the_tasks_that_kill_their_process_end_in_dead_letters(
    mesh: ForebayUp,
) -> None:
    killers = {index for index in range(MANY) if index % KILLER_EVERY < KILLERS_TOGETHER}
    assert len(killers) == MANY // 100
    words = ["exit" if index in killers else f"say {index}" for index in range(MANY)]
    results = await map_all(mesh, words, "killers", [0], max_retries=0)
    failed = {i for i, result in enumerate(results) if isinstance(result, forebay.TaskFailedError)}
    assert failed == killers
    assert all(said(results[i]) == words[i] for i in range(MANY) if i not in killers)
    dead = json.loads(
        mesh.forebay(
            "tasks", "list", "chaos", "--batch", "killers", "--state", "failed", "-o", "json"
        )
        .ok()
        .out
    )
    assert len(dead) == len(killers)
