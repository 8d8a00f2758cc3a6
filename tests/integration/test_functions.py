"""Functions on a whole mesh with a real Triton, as a user writes, deploys and calls them."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import forebay
from forebay.functions import calls, connections, loading
from forebay.functions.function import Function
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.functions_mesh import functions_mesh

_JOB = '''
import os, sys, time
import forebay
from words import shout

@forebay.function(scaling=forebay.QueueDepth(max_tasks_per_replica=30, max_replicas=2),
                  min_backoff_s=0.05)
class Sizes:
    """The ten lines of the README."""

    def on_start(self):
        self.started = os.getpid()

    def __call__(self, item: bytes, *, loud: bool = False) -> dict:
        if item == b"bad":
            raise ValueError("a bad item")
        if item == b"never":
            raise forebay.PermanentError("not ever")
        print("saw", len(item))
        return {"size": len(item), "word": shout("ok") if loud else "ok"}

@forebay.function(batch=True, max_batch_size=8, batch_delay_s=0.2, min_backoff_s=0.05)
def together(items):
    if 13 in items:
        raise ValueError("thirteen")
    return [[item * 2, len(items)] for item in items]

@forebay.function(batch=True)
def shorter(items):
    return items[1:]

@forebay.function
def arrays(value):
    import numpy
    return {"sum": value["x"].sum(axis=0), "same": value, "scalar": numpy.float32(0.5)}

@forebay.function(workers=2, name="pids")
class Pids:
    def on_start(self):
        self.pid = os.getpid()
    def __call__(self, wait_s):
        time.sleep(wait_s)
        return self.pid

@forebay.function(max_retries=0, attempt_timeout_s=4)
def endless(x):
    while x:
        time.sleep(0.01)
    return x

@forebay.function(max_retries=0)
def crash(x):
    if x:
        os._exit(3)
    return x

@forebay.schedule(when="0 2 * * *", timezone="Europe/Berlin", argument=3)
@forebay.function
def nightly(x):
    return x
'''


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    with functions_mesh(tmp_path_factory.mktemp("functions")) as up:
        yield up


@pytest.fixture(scope="module")
def job(mesh: ForebayUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The file of a user, with what it imports beside it."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "job_xyz.py").write_text(_JOB)
    (directory / "words.py").write_text("def shout(text): return text.upper()\n")
    module = loading.load(directory / "job_xyz.py")
    yield module
    sys.path.remove(str(directory))
    for name in ("job_xyz", "words"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def sizes(job: ModuleType) -> Function:
    function: Function = job.Sizes
    function.deploy()
    return function


def test_deploying_again_changes_nothing_until_the_source_does(sizes: Function) -> None:
    assert sizes.deploy().changed == ("unchanged",)
    source = Path(sys.modules["job_xyz"].__file__ or "")
    text = source.read_text()
    source.write_text(text + "# more\n")
    changed = sizes.deploy()
    source.write_text(text)
    assert changed.changed == ("updated", "model_digest")
    assert sizes.deploy().generation == changed.generation + 1


def test_a_function_runs_here_in_the_mesh_and_as_a_task(sizes: Function) -> None:
    wanted = {"size": 3, "word": "OK"}
    assert sizes(b"abc", loud=True) == wanted
    assert sizes.local(b"abc", loud=True) == wanted
    assert sizes.remote(b"abc", loud=True) == wanted
    call = sizes.submit(b"abc", loud=True)
    assert call.result(60) == wanted
    assert call.status.state == "succeeded"


async def test_every_call_can_be_awaited(sizes: Function) -> None:
    try:
        assert (await sizes.aremote(b"abc"))["size"] == 3
        assert (await (await sizes.asubmit(b"ab")).result(60))["size"] == 2
        found = [value["size"] async for value in sizes.amap([b"", b"a"])]
        assert found == [0, 1]
        with pytest.raises(RuntimeError, match=r"await Sizes\.adeploy"):
            sizes.deploy()
        assert (await sizes.adeploy()).changed == ("unchanged",)
    finally:
        await connections.aclose()


def test_what_the_function_raises_comes_with_its_type_and_its_line(sizes: Function) -> None:
    with pytest.raises(forebay.FunctionError) as raised:
        sizes.remote(b"bad")
    assert (raised.value.kind, raised.value.reason) == ("ValueError", "a bad item")
    assert 'raise ValueError("a bad item")' in raised.value.traceback
    assert 'File "job_xyz.py"' in raised.value.traceback
    assert raised.value.request_id


def test_an_error_is_retried_and_a_permanent_one_is_not(sizes: Function) -> None:
    bad = sizes.options(max_retries=1).submit(b"bad")
    with pytest.raises(forebay.FunctionError, match="a bad item"):
        bad.result(60)
    assert bad.status.attempt_count == 2
    never = sizes.submit(b"never")
    with pytest.raises(forebay.FunctionError) as raised:
        never.result(60)
    assert raised.value.permanent
    assert never.status.attempt_count == 1


def test_one_bad_item_of_a_batch_leaves_the_others_their_results(sizes: Function) -> None:
    items = [b"a", b"bad", b"ccc", b"never", b""]
    found = list(sizes.map(items, batch_size=5, return_exceptions=True))
    assert [value["size"] for value in (found[0], found[2], found[4])] == [1, 3, 0]
    assert [(error.kind, error.permanent) for error in (found[1], found[3])] == [
        ("ValueError", False),
        ("PermanentError", True),
    ]
    with pytest.raises(forebay.FunctionError, match="a bad item"):
        list(sizes.map(items, batch_size=5))


def test_wrong_arguments_go_nowhere(sizes: Function) -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        sizes.remote()
    with pytest.raises(forebay.InvalidRequestError, match=r"builtins\.set cannot be sent"):
        sizes.remote({1})
    found = list(sizes.starmap([(b"a",), (b"a", 2)], return_exceptions=True))
    assert found[0]["size"] == 1
    assert isinstance(found[1], TypeError)


def test_printed_lines_are_in_the_replicas_log(mesh: ForebayUp, sizes: Function) -> None:
    sizes.remote(b"x" * 12345)

    def is_there() -> bool:
        return "saw 12345" in mesh.forebay("logs", "sizes", "-n", "1000").ok().out

    # The answer may come before the line is in the file.
    asyncio.run(eventually(is_there))


def test_a_function_is_called_from_the_command_line(
    mesh: ForebayUp, sizes: Function, tmp_path: Path
) -> None:
    file = tmp_path / "item.bin"
    file.write_bytes(b"\xff" * 7)
    wanted = {"size": 7, "word": "ok"}
    inferred = mesh.forebay("infer", sizes.name, file, "-o", "json").json()
    assert inferred["results"][0]["outputs"] == {"value": wanted}
    given = ("--input", f"ITEM=@{file}", "--wait", "-o", "json")
    assert mesh.forebay("tasks", "submit", sizes.name, *given).json()[0]["outputs"] == {
        "value": wanted
    }
    made = ("schedules", "create", "by-hand", sizes.name, file, "--when", "0 0 1 1 *")
    mesh.forebay(*made).ok()
    run = mesh.forebay("schedules", "run", "by-hand", "-o", "json").json()
    assert mesh.forebay("tasks", "result", run["task"], "-o", "json").json() == {"value": wanted}
    mesh.forebay("schedules", "delete", "by-hand").ok()


def test_a_function_of_lists_gets_what_several_calls_sent(job: ModuleType) -> None:
    together = job.together
    together.deploy()
    assert together.local(4) == [8, 1]
    calls = [together.submit(number) for number in range(6)]
    found = [call.result(60) for call in calls]
    assert [value for value, _ in found] == [0, 2, 4, 6, 8, 10]
    # All six may have come one after the other; eight of one request come together.
    assert [count for _, count in together.map(range(8))] == [8] * 8
    mixed = list(together.map([12, 13, 14], return_exceptions=True))
    assert (mixed[0], mixed[2]) == ([24, 1], [28, 1])
    assert mixed[1].reason == "thirteen"
    with pytest.raises(ValueError, match="max_batch_size = 8"):
        together.map([], batch_size=9)
    with pytest.raises(TypeError, match="a call has one argument"):
        together.remote(1, 2)


def test_a_list_of_another_length_is_a_permanent_error(job: ModuleType) -> None:
    job.shorter.deploy()
    with pytest.raises(forebay.FunctionError, match="it got 1 and returned 0") as raised:
        job.shorter.submit("x").result(60)
    assert raised.value.permanent


def test_arrays_go_there_and_back(job: ModuleType) -> None:
    job.arrays.deploy()
    value = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "name": np.array(["ä", "bc"])}
    found = job.arrays.remote(value)
    np.testing.assert_array_equal(found["sum"], value["x"].sum(axis=0))
    np.testing.assert_array_equal(found["same"]["name"], value["name"])
    assert found["same"]["x"].dtype == np.float32
    assert type(found["scalar"]) is np.float32


def test_workers_are_processes_that_start_once_each(job: ModuleType) -> None:
    job.Pids.deploy()
    assert len(set(job.Pids.map([1.0] * 6))) == 2


def test_an_attempt_that_takes_too_long_ends_and_the_replica_goes_on(job: ModuleType) -> None:
    job.endless.deploy()
    assert job.endless.submit(0).result(60) == 0
    call = job.endless.submit(1)
    with pytest.raises(forebay.FunctionError, match=r"longer than attempt_timeout_s = 4 s"):
        call.result(60)
    assert job.endless.submit(0).result(60) == 0


def test_a_function_that_kills_its_process_fails_alone(job: ModuleType) -> None:
    job.crash.deploy()
    results = list(job.crash.map([0, 1, 0, 0], return_exceptions=True))
    assert [results[0], *results[2:]] == [0, 0, 0]
    assert isinstance(results[1], forebay.ForebayError)


def test_a_schedule_is_made_with_its_function(mesh: ForebayUp, job: ModuleType) -> None:
    job.nightly.deploy()
    listed = mesh.forebay("schedules", "list", "-o", "json").ok().out
    assert '"schedules/nightly"' in listed
    assert '"Europe/Berlin"' in listed
    assert job.nightly.remote(3) == 3
    # What it runs is a call with the schedule's argument.
    mesh.forebay("schedules", "run", "nightly").ok()
    with forebay.Client() as client:
        (status,) = client.tasks("nightly")
        assert calls.value_of(client.task(status.name).result(60)) == 3
