"""Custom policies in real processes: what they answer, and what they cannot do to anybody."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest
import uvloop

from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler.consumers import Consumers
from services.autoscaler.custom import runner
from services.autoscaler.custom.process import CALL_LIMIT_S, FailedError, WorkerProcess
from services.autoscaler.custom.runner import IDLE, MAX_WORKERS, CustomPolicies
from services.autoscaler.deployments import Deployments
from services.autoscaler.model_store import ModelStore
from services.autoscaler.scaling.signals import Signals
from services.runtime.clock import SystemClock
from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.status import StatusError
from tests.support.control_plane import control_plane, linked
from tests.support.eventually import eventually

MINE = """
import math, os, subprocess, sys, threading, time

import numpy

not_callable = 3

def by_queue(signals):
    return (signals.queued or 0) / 10

def with_numpy(signals):
    return numpy.ceil(numpy.float32(2.0))

def raises(signals):
    raise ValueError("no such thing" + "\\n" + "and more")

def raises_at_length(signals):
    raise ValueError("x" * 5000)

def leaves(signals):
    raise SystemExit(4)

nan = lambda signals: math.nan
infinite = lambda signals: math.inf
negative = lambda signals: -2
enormous = lambda signals: 1001
text = lambda signals: "3"
nothing = lambda signals: None
truth = lambda signals: True

async def coroutine(signals):
    return 1

def hangs(signals):
    time.sleep(10)
    return 1

def prints(signals):
    print('{"answer": 99.0}')
    os.write(1, b'{"answer": 98.0}\\n')
    os.system("echo 97")
    return len(sys.stdin.read()) + 5

def exits(signals):
    os._exit(3)

def exits_when_busy(signals):
    if signals.queued:
        os._exit(3)
    return 1

def exits_later(signals):
    threading.Timer(0.1, os._exit, (3,)).start()
    return 1

def eats_memory(signals):
    return len(bytearray(3 * 1024 ** 3))

def leaves_a_child(signals):
    child = subprocess.Popen(["sleep", "600"])
    with open(os.path.join(os.path.dirname(__file__), "child"), "w") as file:
        file.write(str(child.pid))
    time.sleep(10)

"""


def limit_calls(monkeypatch: pytest.MonkeyPatch, limit_s: float) -> None:
    """Has a call take so long at most, in place of the second that it may take of an autoscaler."""
    monkeypatch.setattr(WorkerProcess.call, "__defaults__", (limit_s,))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no test of time is no matter of time."""
    assert WorkerProcess.call.__defaults__ == (CALL_LIMIT_S,)
    limit_calls(monkeypatch, 30.0)
    monkeypatch.setattr(runner, "AGE_LIMIT_S", 60.0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(60)")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner.py").write_text("def two(signals): return 2")
    for number in range(MAX_WORKERS + 1):
        (tmp_path / f"crowd_{number}.py").write_text("def one(signals): return 1")
    return tmp_path


@asynccontextmanager
async def running(directory: Path | None) -> AsyncIterator[CustomPolicies]:
    policies = CustomPolicies(directory, SystemClock())
    task = asyncio.create_task(policies.run())
    try:
        yield policies
    finally:
        assert not task.done(), task
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not workers()


def workers() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if not _ended(child.pid)]


@pytest.fixture
async def policies(directory: Path) -> AsyncIterator[CustomPolicies]:
    async with running(directory) as made:
        yield made


async def said(
    policies: CustomPolicies, function: str, deployment: str = "add", queued: int = 25
) -> tuple[float | None, str]:
    """The first answer or error, asked for again and again as the autoscaler does."""

    def probe() -> tuple[float | None, str] | None:
        policies.ask(deployment, function, Signals(queued=queued, ongoing=0))
        answer = policies.answer(deployment)
        return answer if answer != (None, "") else None

    return await eventually(probe, timeout_s=30)


@pytest.mark.parametrize(
    ("function", "value"),
    [("mine:by_queue", 2.5), ("mine:with_numpy", 2.0), ("package.inner:two", 2.0)],
)
async def test_a_function_is_called_with_what_is_seen(
    policies: CustomPolicies, function: str, value: float
) -> None:
    assert await said(policies, function) == (value, "")
    assert await policies.check(function) == ""


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("mine:raises", "raised ValueError: no such thing"),
        ("mine:leaves", "raised SystemExit: 4"),
        ("mine:nan", "returned nan: it must be 0 to 1000"),
        ("mine:infinite", "returned inf: it must be 0 to 1000"),
        ("mine:negative", "returned -2: it must be 0 to 1000"),
        ("mine:enormous", "returned 1001: it must be 0 to 1000"),
        ("mine:text", "returned '3': it must be a number"),
        ("mine:nothing", "returned None: it must be a number"),
        ("mine:truth", "returned True: it must be a number"),
        ("mine:exits", "its process ended with exit code 3"),
        ("mine:eats_memory", "raised MemoryError"),
        ("mine:coroutine", "coroutine is a coroutine function: it must be a plain one"),
        ("mine:not_callable", "not_callable is not a function but 3"),
        ("mine:missing", "module mine has no function missing"),
        ("package.missing:f", "importing package.missing raised ModuleNotFoundError: No module"),
        ("broken:f", "importing broken raised ModuleNotFoundError: No module named"),
        ("absent:f", "there is no module absent in policies_dir, "),
        # A module of Python itself is none of those that the operator put there.
        ("os:getpid", "there is no module os in policies_dir, "),
    ],
)
async def test_what_is_wrong_is_named_when_it_is_declared_and_when_it_runs(
    policies: CustomPolicies, function: str, error: str
) -> None:
    assert (await policies.check(function)).startswith(error)
    value, running = await said(policies, function)
    assert value is None
    assert running.startswith(error)


async def test_a_long_error_is_cut(policies: CustomPolicies) -> None:
    _, error = await said(policies, "mine:raises_at_length")
    assert error.startswith("raised ValueError: xxx")
    assert len(error) == 200


async def test_what_takes_too_long_is_ended_and_named(
    policies: CustomPolicies, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_calls(monkeypatch, CALL_LIMIT_S)
    # Enough for its import, which counts.
    monkeypatch.setattr(runner, "CHECK_LIMIT_S", 4.5)
    assert await said(policies, "mine:hangs") == (None, "took longer than 1 s")
    assert await policies.check("mine:hangs") == "took longer than 4.5 s to answer"
    assert await policies.check("endless:f") == "importing it took longer than 4.5 s"


async def test_a_function_that_hangs_delays_no_other(
    policies: CustomPolicies, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_calls(monkeypatch, 4.0)
    await said(policies, "mine:by_queue", "quick")
    policies.ask("slow", "mine:hangs", Signals(queued=1, ongoing=0))
    answered = 0
    queued = 0
    while not policies.answer("slow")[1]:
        queued += 10
        policies.ask("quick", "mine:by_queue", Signals(queued=queued, ongoing=0))

        def answer(expected: float = queued / 10) -> bool:
            return policies.answer("quick") == (expected, "")

        await eventually(answer)
        answered += 1
    # One call hangs for 4 s; a call of the other takes milliseconds.
    assert policies.answer("slow") == (None, "took longer than 4 s")
    assert answered >= 5


async def test_asking_does_not_wait_and_the_newest_question_wins(policies: CustomPolicies) -> None:
    for queued in range(10_000):
        policies.ask("add", "mine:by_queue", Signals(queued=queued, ongoing=0))
    await eventually(lambda: policies.answer("add") == (999.9, ""))
    assert len(workers()) == 1


async def test_deployments_share_the_process_of_a_function(policies: CustomPolicies) -> None:
    for number in range(300):
        policies.ask(f"d{number}", "mine:by_queue", Signals(queued=number, ongoing=0))
    for number in range(300):
        await eventually(lambda n=number: policies.answer(f"d{n}") == (n / 10, ""))
    assert len(workers()) == 1


async def test_an_answer_stands_while_a_dead_process_is_replaced(policies: CustomPolicies) -> None:
    assert await said(policies, "mine:exits_when_busy", queued=0) == (1.0, "")
    (first,) = workers()
    policies.ask("add", "mine:exits_when_busy", Signals(queued=1, ongoing=0))
    await eventually(lambda: workers() != [first])
    assert policies.answer("add") == (1.0, "")
    policies.ask("other", "mine:exits_when_busy", Signals(queued=0, ongoing=0))
    await eventually(lambda: policies.answer("other") == (1.0, ""))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_process_that_ends_between_two_calls_is_named(
    directory: Path, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    async def called_twice() -> None:
        worker = await WorkerProcess.start(directory, "mine:exits_later")
        try:
            assert await worker.call(IDLE) == 1
            await eventually(lambda: not workers())
            for _ in range(3):
                with pytest.raises(FailedError, match="its process ended with exit code 3"):
                    await worker.call(IDLE)
        finally:
            await worker.end()

    run(called_twice())


async def test_an_answer_grows_old(
    policies: CustomPolicies, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await said(policies, "mine:by_queue") == (2.5, "")
    monkeypatch.setattr(runner, "AGE_LIMIT_S", 0.3)

    def old() -> bool:
        value, error = policies.answer("add")
        return value is None and error.startswith("has not answered for ")

    await eventually(old)


async def test_what_a_function_prints_and_reads_is_not_the_autoscalers(
    policies: CustomPolicies,
) -> None:
    assert await said(policies, "mine:prints") == (5.0, "")
    assert await said(policies, "mine:prints", "other") == (5.0, "")


async def test_what_a_function_started_ends_with_it(
    policies: CustomPolicies, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_calls(monkeypatch, 4.0)
    assert (await said(policies, "mine:leaves_a_child"))[1] == "took longer than 4 s"
    child = int((directory / "child").read_text())
    await eventually(lambda: not psutil.pid_exists(child) or _ended(child))


def _ended(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_no_more_functions_run_than_may(policies: CustomPolicies) -> None:
    for number in range(MAX_WORKERS):
        assert await said(policies, f"crowd_{number}:one", f"d{number}") == (1.0, "")
    _, error = await said(policies, f"crowd_{MAX_WORKERS}:one", "last")
    assert error == "there are 16 custom policies already, and no more may run"
    assert len(workers()) == MAX_WORKERS


async def test_a_function_nobody_asks_gives_its_place_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "UNUSED_AFTER_S", 0.3)
    async with running(directory) as policies:
        await said(policies, "mine:by_queue")
        await eventually(lambda: not workers())
        assert await said(policies, "mine:by_queue", "later") == (2.5, "")


async def test_another_function_of_a_deployment_starts_without_an_answer(
    policies: CustomPolicies,
) -> None:
    assert await said(policies, "mine:by_queue") == (2.5, "")
    policies.ask("add", "package.inner:two", Signals())
    assert policies.answer("add") == (None, "")
    assert await said(policies, "package.inner:two") == (2.0, "")


async def test_without_a_directory_there_are_none() -> None:
    async with running(None) as policies:
        policies.ask("add", "mine:by_queue", Signals())
        value, error = policies.answer("add")
        assert value is None
        assert "policies_dir" in error
        assert await policies.check("mine:by_queue") == error


async def test_a_worker_is_bounded(policies: CustomPolicies) -> None:
    await said(policies, "mine:by_queue")
    (pid,) = workers()
    process = psutil.Process(pid)
    assert process.rlimit(psutil.RLIMIT_AS)[1] <= 2 * 1024**3
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_CPU)[0] < 60
    assert process.nice() > psutil.Process(os.getpid()).nice()


async def test_a_function_that_cannot_be_used_is_refused_when_it_is_declared(
    directory: Path, policies: CustomPolicies
) -> None:
    def declared(function: str, digest: str) -> Deployment:
        deployment = Deployment(name="deployments/add", model_digest=digest)
        deployment.scaling.policy.custom.function = function
        return deployment

    async with control_plane(directory) as mesh, linked(mesh.nats.url) as link:
        mirror = KvMirror(link, streams.deployments_bucket)
        await mirror.reload()
        consumers = Consumers(link, mirror, 10)
        deployments = Deployments(
            mirror, ModelStore(link, None), consumers, SystemClock(), policies
        )
        digest = await mesh.upload()
        for validate_only in (True, False):
            with pytest.raises(StatusError, match="returned nan: it must be 0 to 1000") as caught:
                await deployments.create("add", declared("mine:nan", digest), validate_only)
            assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
            assert "scaling.policy.custom.function = 'mine:nan'" in str(caught.value)
        await deployments.create("add", declared("mine:by_queue", digest), False)
        with pytest.raises(StatusError, match="no module absent"):
            await deployments.update(declared("absent:f", digest), None, False)
        several = Deployment(name="deployments/add")
        several.scaling.policy.max_of.policies.add().queue_depth.SetInParent()
        several.scaling.policy.max_of.policies.add().custom.function = "mine:text"
        with pytest.raises(StatusError, match=r"max_of\.policies\.custom\.function = 'mine:text'"):
            await deployments.update(several, None, False)
        # What runs is not tried again: its module may be gone by the time something else changes.
        (directory / "mine.py").unlink()
        changed = declared("mine:by_queue", digest)
        changed.scaling.max_replicas = 7
        assert (await deployments.update(changed, None, False)).scaling.max_replicas == 7
