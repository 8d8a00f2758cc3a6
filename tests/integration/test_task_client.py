"""Tasks through the Python clients and the command line, on a whole mesh with a real Triton."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forebay
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp, write_echo

FAST: Any = {"max_retries": 1, "min_backoff_s": 0.05}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("tasks")
    with ForebayUp(directory / "state") as up:
        up.forebay("deploy", write_echo(directory, max_ongoing_requests=2)).ok()
        yield up


@pytest.fixture
def client(mesh: ForebayUp) -> Iterator[forebay.Client]:
    with forebay.Client(mesh.mesh["router"]) as client:
        yield client


def number(value: int, wait_s: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    inputs: dict[str, Any] = {"IN_INT32": np.array([value], np.int32)}
    if wait_s:
        inputs["WAIT_S"] = np.array([wait_s], np.float32)
    return inputs


RAISES = {"IN_STRING": np.array(["raise"], dtype=object)}


def test_a_task_is_submitted_and_its_result_fetched(client: forebay.Client) -> None:
    task = client.submit("echo", number(7), labels={"run": "a"}, priority="high")
    assert task.deployment == "echo"
    assert task.result(30)["OUT_INT32"].tolist() == [7]
    status = task.status
    assert (status.state, status.priority, status.labels) == ("succeeded", "high", {"run": "a"})
    assert status.create_time is not None
    assert status.end_time is not None
    assert status.end_time >= status.create_time
    again = client.task(f"echo/{task.id}")
    assert again.name == task.name
    assert again.result(30)["OUT_INT32"].tolist() == [7]


async def test_the_asyncio_client_does_the_same(mesh: ForebayUp) -> None:
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        task = await client.submit("echo", number(8, wait_s=0.2))
        seen = [status.state async for status in task.updates(30)]
        assert seen[-1] == "succeeded"
        assert (await task.result(30))["OUT_INT32"].tolist() == [8]
        assert (await task.status()).ended


def test_the_same_key_is_the_same_task_and_another_content_is_refused(
    client: forebay.Client,
) -> None:
    first = client.submit("echo", number(1), idempotency_key="one")
    assert client.submit("echo", number(1), idempotency_key="one").name == first.name
    first.result(30)
    assert client.submit("echo", number(1), idempotency_key="one").name == first.name
    with pytest.raises(forebay.IdempotencyConflictError):
        client.submit("echo", number(2), idempotency_key="one")


def test_without_a_key_every_call_is_a_task(client: forebay.Client) -> None:
    assert client.submit("echo", number(1)).name != client.submit("echo", number(1)).name


def test_what_the_model_raises_fails_the_task_after_its_attempts(client: forebay.Client) -> None:
    task = client.submit("echo", RAISES, **FAST)
    with pytest.raises(forebay.TaskFailedError, match="told to raise") as caught:
        task.result(30)
    assert caught.value.task.attempt_count == 2
    assert [attempt.outcome for attempt in caught.value.task.attempts] == ["internal"] * 2
    assert caught.value.task.state == "failed"


def test_a_failed_task_is_tried_again_as_a_new_one(client: forebay.Client) -> None:
    task = client.submit("echo", RAISES, **FAST)
    task.wait(30)
    again = task.retry()
    assert again.name != task.name
    assert again.wait(30).retry_of == task.name
    done = client.submit("echo", number(1))
    done.result(30)
    with pytest.raises(forebay.TaskStateError):
        done.retry()


def test_a_cancelled_task_has_no_result(client: forebay.Client) -> None:
    running = client.submit("echo", number(1, wait_s=4.0))
    assert running.cancel().state == "cancelled"
    with pytest.raises(forebay.TaskCancelledError):
        running.result(30)
    assert running.cancel().state == "cancelled"


def test_a_task_that_waits_too_long_expires(client: forebay.Client) -> None:
    task = client.submit("echo", number(1, wait_s=5.0), ttl_s=1)
    with pytest.raises(forebay.TaskExpiredError, match="time to live"):
        task.result(30)


def test_waiting_ends_when_its_time_is_over_and_the_task_goes_on(client: forebay.Client) -> None:
    task = client.submit("echo", number(5, wait_s=1.5))
    with pytest.raises(forebay.DeadlineExceededError, match="goes on"):
        task.result(0.2)
    assert task.result(30)["OUT_INT32"].tolist() == [5]


def test_what_is_not_there_is_its_own_error(client: forebay.Client) -> None:
    with pytest.raises(forebay.TaskNotFoundError):
        client.task("echo/nothing").result(5)
    with pytest.raises(forebay.DeploymentNotFoundError):
        client.submit("nowhere", number(1))
    with pytest.raises(forebay.InvalidRequestError, match="max_retries"):
        client.submit("echo", number(1), max_retries=99)


def test_tasks_of_another_tenant_are_not_there(mesh: ForebayUp, client: forebay.Client) -> None:
    with forebay.Client(mesh.mesh["router"], tenant="other") as other:
        theirs = other.submit("echo", number(1), batch="theirs")
        theirs.result(30)
        with pytest.raises(forebay.TaskNotFoundError):
            client.task(theirs.name).result(5)
        assert [status.name for status in other.tasks("echo", batch="theirs")] == [theirs.name]
        assert list(client.tasks("echo", batch="theirs")) == []
    with pytest.raises(forebay.InvalidRequestError, match="tenant"):
        forebay.Client(mesh.mesh["router"], tenant="Not One")


def test_tasks_are_listed_by_what_they_are_and_forgotten(client: forebay.Client) -> None:
    tasks = [client.submit("echo", number(i), batch="listed", batch_index=i) for i in range(3)]
    bad = client.submit("echo", RAISES, batch="listed", max_retries=0, labels={"bad": "yes"})
    for task in (*tasks, bad):
        task.wait(30)
    found = list(client.tasks("echo", batch="listed", states=["succeeded"]))
    assert sorted(status.batch_index or 0 for status in found) == [0, 1, 2]
    (only,) = client.tasks(labels={"bad": "yes"})
    assert (only.name, only.state) == (bad.name, "failed")
    assert client.purge_tasks("echo", batch="listed", dry_run=True) == 4
    assert client.purge_tasks("echo", batch="listed", states=["failed"]) == 1
    with pytest.raises(forebay.TaskNotFoundError):
        client.task(bad.name).result(5)
    assert client.purge_tasks("echo", batch="listed") == 3


async def test_a_result_comes_though_the_router_is_killed_meanwhile(mesh: ForebayUp) -> None:
    found: list[Any] = []
    with forebay.Client(mesh.mesh["router"]) as client:
        # Long enough to be seen while it runs.
        task = client.submit("echo", number(9, wait_s=6.0))
        waiting = threading.Thread(target=lambda: found.append(task.result(120)))
        waiting.start()

        def runs() -> bool:
            return task.status.state == "running"

        await eventually(runs, timeout_s=60)
        mesh.kill("router")
        # Also one that begins while nobody answers.
        assert client.submit("echo", number(3)).result(60)["OUT_INT32"].tolist() == [3]
        waiting.join(120)
    assert found[0]["OUT_INT32"].tolist() == [9]


def test_the_command_line_submits_and_fetches(mesh: ForebayUp, tmp_path: Path) -> None:
    (made,) = mesh.forebay(
        *("tasks", "submit", "echo", "-i", "IN_INT32=[3]", "-l", "by=cli", "-o", "json")
    ).json()
    assert mesh.forebay("tasks", "result", made["name"], "-o", "json").json() == {"OUT_INT32": [3]}
    shown = mesh.forebay("tasks", "show", made["name"], "-o", "json").json()
    assert (shown["state"], shown["labels"]) == ("succeeded", {"by": "cli"})
    assert made["name"].rpartition("/")[2] in mesh.forebay("tasks", "list", "echo").ok().out
    assert mesh.forebay("tasks", "wait", made["name"]).ok()
    waited = mesh.forebay(
        *("tasks", "submit", "echo", "-i", "IN_INT32=[4]", "--wait", "-o", "json")
    ).json()
    assert waited[0]["outputs"] == {"OUT_INT32": [4]}


def test_the_command_line_says_what_is_wrong(mesh: ForebayUp) -> None:
    raised = mesh.forebay(
        *("tasks", "submit", "echo", "-i", 'IN_STRING=["raise"]', "--max-retries", "0", "--wait")
    )
    assert (raised.code, "told to raise" in raised.err) == (1, True)
    (failed,) = mesh.forebay(
        "tasks", "list", "echo", "-s", "failed", "-n", "1", "-o", "json"
    ).json()
    assert mesh.forebay("tasks", "wait", failed["name"]).code == 1
    assert mesh.forebay("tasks", "retry", failed["name"], "-o", "json").json()[0]["name"]
    missing = mesh.forebay("tasks", "show", "echo/nothing")
    assert (missing.code, "forebay tasks list" in missing.err) == (3, True)
    assert mesh.forebay("tasks", "show", "nothing").code == 2
    assert mesh.forebay("tasks", "submit", "echo").code == 2
    assert mesh.forebay("tasks", "submit", "echo", "-i", "IN_INT32=[1]", "-l", "x").code == 2
    ended = mesh.forebay("tasks", "cancel", failed["name"])
    assert (ended.code, "had ended before" in ended.err) == (0, True)
    purged = mesh.forebay(
        "tasks", "purge", "echo", "-s", "failed", "--dry-run", "-o", "json"
    ).json()
    assert purged["purged_count"] > 0
