"""Maps over many inputs, on a whole mesh with a real Triton."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import forebay
from tests.support.eventually import eventually
from tests.support.forebay_up import ROOT, ForebayUp, write_echo


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("map")
    with ForebayUp(directory / "state") as up:
        up.forebay("deploy", write_echo(directory, max_ongoing_requests=16)).ok()
        yield up


@pytest.fixture
def client(mesh: ForebayUp) -> Iterator[forebay.Client]:
    with forebay.Client(mesh.mesh["router"]) as client:
        yield client


def number(value: int) -> dict[str, Any]:
    return {"IN_INT32": np.array([value], np.int32)}


def numbers(count: int, seen: list[int] | None = None) -> Iterator[dict[str, Any]]:
    for value in range(count):
        if seen is not None:
            seen.append(value)
        yield number(value)


def said(result: Any) -> int:
    assert not isinstance(result, BaseException), repr(result)
    return int(result["OUT_INT32"][0])


def test_results_come_in_the_order_of_inputs(client: forebay.Client) -> None:
    assert [said(r) for r in client.map("echo", numbers(500), max_in_flight=64)] == list(range(500))


def test_results_come_as_they_end_if_no_order_is_wanted(client: forebay.Client) -> None:
    again = {"IN_STRING": np.array(["raise"], dtype=object)}
    inputs = [again, *(number(value) for value in range(1, 100))]
    results = list(
        client.map(
            "echo",
            inputs,
            ordered=False,
            return_exceptions=True,
            max_retries=1,
            min_backoff_s=5,
        )
    )
    (failed,) = [n for n, r in enumerate(results) if isinstance(r, forebay.TaskFailedError)]
    # It went in first. How many come before its second attempt is a matter of the machine.
    assert failed > 0
    del results[failed]
    assert sorted(said(result) for result in results) == list(range(1, 100))


def test_many_items_are_one_task(client: forebay.Client) -> None:
    mapped = client.map("echo", numbers(100), batch_size=32, max_in_flight=64)
    assert [said(result) for result in mapped] == list(range(100))
    batch = list(client.tasks("echo", batch=mapped.batch))
    assert sorted(status.batch_index or 0 for status in batch) == [0, 1, 2, 3]


def test_no_more_is_read_than_may_be_in_flight(client: forebay.Client) -> None:
    seen: list[int] = []
    mapped = client.map("echo", numbers(200, seen), max_in_flight=10)
    for count, _ in enumerate(mapped, start=1):
        assert len(seen) <= count + 10
    assert len(seen) == 200


def bad_and_good() -> list[dict[str, Any]]:
    return [
        number(0),
        {"IN_INT32": np.array([1j])},
        {"IN_STRING": np.array(["raise"], dtype=object)},
        {"WRONG": np.array([1], np.int32)},
        {"IN_UINT8": np.zeros(9_000_000, np.uint8)},
        number(5),
    ]


@pytest.mark.parametrize("ordered", [True, False])
def test_bad_inputs_stand_in_their_places_and_the_others_go_on(
    client: forebay.Client, ordered: bool
) -> None:
    results = list(
        client.map("echo", bad_and_good(), return_exceptions=True, ordered=ordered, max_retries=0)
    )
    errors = [result for result in results if isinstance(result, Exception)]
    assert sorted(said(r) for r in results if not isinstance(r, Exception)) == [0, 5]
    assert len(errors) == 4
    assert sum(isinstance(error, forebay.TaskFailedError) for error in errors) == 2
    if ordered:
        assert (said(results[0]), said(results[5])) == (0, 5)
        assert "complex128" in str(results[1])
        assert "told to raise" in str(results[2])
        assert "WRONG" in str(results[3])
        assert "8388608" in str(results[4])


def test_an_error_is_raised_at_its_turn_and_the_rest_can_be_fetched(
    client: forebay.Client,
) -> None:
    mapped = client.map("echo", bad_and_good(), max_retries=0)
    assert said(next(mapped)) == 0
    with pytest.raises(forebay.InvalidRequestError, match="complex128") as caught:
        next(mapped)
    assert mapped.batch in caught.value.__notes__[0]
    assert list(mapped) == []
    results = list(
        client.map(
            "echo", bad_and_good(), batch=mapped.batch, return_exceptions=True, max_retries=0
        )
    )
    assert (said(results[0]), said(results[5])) == (0, 5)


def test_what_the_inputs_raise_comes_after_the_results_before_it(client: forebay.Client) -> None:
    def inputs() -> Iterator[dict[str, Any]]:
        yield from numbers(20)
        raise KeyError("no more")

    came: list[int] = []
    with pytest.raises(KeyError, match="no more"):
        came.extend(said(result) for result in client.map("echo", inputs()))
    assert came == list(range(20))


def test_an_unknown_deployment_ends_the_map(client: forebay.Client) -> None:
    with pytest.raises(forebay.DeploymentNotFoundError):
        list(client.map("nowhere", numbers(3), return_exceptions=True))


def test_leaving_early_stops_reading_and_cancels_nothing(client: forebay.Client) -> None:
    seen: list[int] = []
    mapped = client.map("echo", numbers(10_000, seen), max_in_flight=20, batch="left-early")
    for result in mapped:
        if said(result) == 30:
            break
    mapped.close()
    read = len(seen)
    assert read < 100
    again = client.map("echo", numbers(200), batch="left-early")
    assert [said(result) for result in again] == list(range(200))
    states = {status.state for status in client.tasks("echo", batch="left-early")}
    assert states == {"succeeded"}
    assert len(seen) == read


def test_a_batch_gone_on_with_runs_nothing_twice(client: forebay.Client) -> None:
    first = client.map("echo", numbers(300), batch="twice", ordered=False)
    assert len(list(first)) == 300
    began = {s.name: s.start_time for s in client.tasks("echo", batch="twice")}
    assert len(began) == 300
    # With less room than there are results, so that some are fetched one by one.
    again = client.map("echo", numbers(320), batch="twice", max_in_flight=16)
    assert [said(result) for result in again] == list(range(320))
    after = {s.name: s.start_time for s in client.tasks("echo", batch="twice")}
    assert len(after) == 320
    assert began.items() <= after.items()


async def test_asynchronous_inputs_and_a_slow_reader(mesh: ForebayUp) -> None:
    async def inputs() -> AsyncIterator[dict[str, Any]]:
        for value in range(100):
            yield number(value)

    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        mapped = client.map("echo", inputs(), max_in_flight=8)
        assert [said(result) async for result in mapped] == list(range(100))
        async with client.map("echo", numbers(10_000), max_in_flight=8) as left:
            assert said(await anext(left)) == 0


async def test_a_map_goes_on_when_its_router_is_killed(mesh: ForebayUp) -> None:
    results: list[int] = []

    def run() -> None:
        with forebay.Client(mesh.mesh["router"]) as client:
            results.extend(said(result) for result in client.map("echo", numbers(4000)))

    thread = threading.Thread(target=run)
    thread.start()
    for count in (500, 2000):
        await eventually(lambda count=count: len(results) > count, timeout_s=60)
        assert thread.is_alive(), "it was over before the router was killed"
        mesh.kill("router")
    thread.join(150)
    assert results == list(range(4000))


_CALLER = """
import sys, numpy as np, forebay
with forebay.Client(sys.argv[1]) as client:
    inputs = ({"IN_INT32": np.array([i], np.int32)} for i in range(3000))
    for result in client.map("echo", inputs, batch="killed-caller", max_in_flight=300):
        print(int(result["OUT_INT32"][0]), flush=True)
"""


def caller(mesh: ForebayUp) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _CALLER, mesh.mesh["router"]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_map_goes_on_after_its_caller_was_killed(mesh: ForebayUp, client: forebay.Client) -> None:
    with caller(mesh) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(400)]
        process.kill()
    assert [int(line) for line in lines] == list(range(400))
    done = {
        s.name: s.start_time
        for s in client.tasks("echo", batch="killed-caller", states=["succeeded"])
    }
    assert len(done) >= 400
    inputs = numbers(3000)
    mapped = client.map("echo", inputs, batch="killed-caller", max_in_flight=300)
    assert [said(result) for result in mapped] == list(range(3000))
    after = {s.name: s.start_time for s in client.tasks("echo", batch="killed-caller")}
    assert len(after) == 3000
    assert done.items() <= after.items(), "what had ended was run again"


def test_ctrl_c_ends_a_caller_at_once(mesh: ForebayUp) -> None:
    with caller(mesh) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        _, errors = process.communicate(timeout=60)
    # Nothing that it waits for: neither the rest of its results nor the 30 s of a request.
    assert time.monotonic() - began_s < 20
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
