"""Calls that are repeated under one idempotency key: one visible result, whoever asks and when."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import structlog
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

import forebay
from forebay.v1.envelope_pb2 import OUTCOME_OK, RequestEnvelope
from services.node_agent.answers import AnswerPublisher
from services.node_agent.attempt import Answer
from services.node_agent.intake import Ongoing
from services.runtime.clock import SystemClock
from services.wire import streams, subjects
from tests.support.chaos_model import write_chaos
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.forebay_up import ROOT, ForebayUp
from tests.support.nats_server import NatsServer

# Says how often it ran, so that an answer shows which run it is of.
_COUNTING = """\
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.runs = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        word = pb_utils.get_input_tensor_by_name(request, "DO").as_numpy().reshape(-1)[0]
        self.runs += 1
        time.sleep(float(word.decode().partition(":")[2] or 0))
        said = np.array([f"run {self.runs}".encode()], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SAID", said)])
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("idempotency")
    with ForebayUp(directory / "state", "--slots", "1") as up:
        file = write_chaos(
            directory,
            name="counting",
            model=_COUNTING,
            canary="off",
            max_ongoing_requests=1,
            request_timeout_s=30,
        )
        up.forebay("deploy", file).ok()
        yield up


@pytest.fixture(scope="module")
def second_router(mesh: ForebayUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a router beside the mesh's own."""
    directory = tmp_path_factory.mktemp("second-router")
    ready_file = directory / "ready.json"
    with (directory / "log").open("wb") as log:
        router = subprocess.Popen(
            [
                *(sys.executable, "-m", "services.router.main"),
                *("--listen", "127.0.0.1:0"),
                *("--nats-url", nats_url(mesh)),
                *("--nats-credentials-file", str(credentials_file(mesh))),
                *("--ready-file", str(ready_file)),
            ],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        deadline_s = time.monotonic() + 60
        while not ready_file.exists():
            assert router.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline_s, (directory / "log").read_text()
            time.sleep(0.02)
        yield json.loads(ready_file.read_text())["router"]
    finally:
        router.terminate()
        try:
            router.wait(timeout=70)
        finally:
            router.kill()
            router.wait()


def credentials_file(mesh: ForebayUp) -> Path:
    return next((mesh.state_dir / "nats").glob("*credentials*"))


def nats_url(mesh: ForebayUp) -> str:
    config = next((mesh.state_dir / "nats").glob("*.conf")).read_text()
    listen = next(line for line in config.splitlines() if line.strip().startswith("listen"))
    return "nats://" + listen.split(":", 1)[1].strip().strip("\"'")


async def said(address: str, word: str, key: str | None, timeout_s: float = 60) -> bytes:
    """What the model answers through the router at an address."""
    inputs = {"DO": np.array([word], dtype=object)}
    async with forebay.AsyncClient(address) as client:
        result = await client.infer("counting", inputs, idempotency_key=key, timeout_s=timeout_s)
    answer: bytes = result["SAID"][0]
    return answer


async def runs(mesh: ForebayUp) -> int:
    """How often the model has run, counting the run that tells it."""
    return int((await said(mesh.mesh["router"], "count", None)).split()[1])


async def under_way(calls: "list[asyncio.Task[Any]]") -> None:
    """Gives calls the time to reach the replica, or the call that they repeat."""
    await asyncio.wait(calls, timeout=1.0)
    assert not any(call.done() for call in calls)


async def test_a_repeat_while_the_first_runs_gets_the_one_answer(mesh: ForebayUp) -> None:
    before = await runs(mesh)
    router = mesh.mesh["router"]
    calls = [asyncio.create_task(said(router, "wait:1.5", "same")) for _ in range(3)]
    answers = await asyncio.gather(*calls)
    assert answers == [f"run {before + 1}".encode()] * 3
    assert await said(router, "wait:1.5", "same") == answers[0]
    assert await runs(mesh) == before + 2


async def test_a_repeat_survives_the_short_deadline_of_the_first(mesh: ForebayUp) -> None:
    router = mesh.mesh["router"]
    first = asyncio.create_task(said(router, "wait:6", "short", timeout_s=4))
    await under_way([first])
    repeat = asyncio.create_task(said(router, "wait:6", "short"))
    with pytest.raises(forebay.DeadlineExceededError):
        await first
    answer = await repeat
    assert await said(router, "wait:6", "short") == answer


async def test_a_repeat_survives_the_cancellation_of_the_first(mesh: ForebayUp) -> None:
    before = await runs(mesh)
    router = mesh.mesh["router"]
    first = asyncio.create_task(said(router, "wait:8", "cancelled"))
    await under_way([first])
    repeats = [asyncio.create_task(said(router, "wait:8", "cancelled")) for _ in range(2)]
    await under_way(repeats)
    first.cancel()
    assert await asyncio.gather(*repeats) == [f"run {before + 1}".encode()] * 2
    assert await runs(mesh) == before + 2


async def test_a_repeat_keeps_its_own_deadline(mesh: ForebayUp) -> None:
    router = mesh.mesh["router"]
    first = asyncio.create_task(said(router, "wait:9", "impatient"))
    await under_way([first])
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    with pytest.raises(forebay.DeadlineExceededError):
        await said(router, "wait:9", "impatient", timeout_s=1)
    # Not when the first one ends.
    assert loop.time() - started_s < 5
    assert not first.done()
    await first


async def test_a_repeat_through_another_router_gets_the_same_answer(
    mesh: ForebayUp, second_router: str
) -> None:
    await serves(second_router)
    before = await runs(mesh)
    first = asyncio.create_task(said(mesh.mesh["router"], "wait:4", "elsewhere"))
    await under_way([first])
    during = asyncio.create_task(said(second_router, "wait:4", "elsewhere"))
    answer = await first
    assert answer == f"run {before + 1}".encode()
    assert await during == answer
    assert await said(second_router, "wait:4", "elsewhere") == answer
    assert await runs(mesh) == before + 2


async def test_a_repeat_through_another_router_survives_the_short_deadline_of_the_first(
    mesh: ForebayUp, second_router: str
) -> None:
    await serves(second_router)
    blocking = asyncio.create_task(said(mesh.mesh["router"], "wait:12", None))
    await under_way([blocking])
    # It expires in the queue: the only slot is taken.
    first = asyncio.create_task(said(mesh.mesh["router"], "wait:0", "expires", timeout_s=6))
    await under_way([first])
    repeat = asyncio.create_task(said(second_router, "wait:0", "expires"))
    with pytest.raises(forebay.DeadlineExceededError):
        await first
    assert (await repeat).startswith(b"run ")
    await blocking


async def test_a_keyed_call_keeps_its_deadline_while_nats_is_frozen(mesh: ForebayUp) -> None:
    router = mesh.mesh["router"]
    await serves(router)
    loop = asyncio.get_running_loop()
    nats = psutil.Process(mesh.pid("nats"))
    nats.suspend()
    try:
        started_s = loop.time()
        with pytest.raises(forebay.DeadlineExceededError):
            await said(router, "wait:0", "frozen", timeout_s=1)
        # It would be frozen for as long as this takes.
        assert loop.time() - started_s < 5
    finally:
        nats.resume()
    assert (await said(router, "wait:0", "frozen")).startswith(b"run ")


async def test_a_call_and_its_repeat_survive_a_restart_of_nats(mesh: ForebayUp) -> None:
    router = mesh.mesh["router"]
    await serves(router)
    first = asyncio.create_task(said(router, "wait:8", "restart", timeout_s=60))
    await under_way([first])
    repeat = asyncio.create_task(said(router, "wait:8", "restart", timeout_s=60))
    await under_way([repeat])
    mesh.kill("nats")
    answers = await asyncio.gather(first, repeat)
    assert answers[0] == answers[1]
    await serves(router)


async def test_a_reply_that_there_is_no_room_to_keep_still_reaches_who_waits(
    tmp_path: Path,
) -> None:
    heard: list[str] = []

    async def on_reply(msg: Msg) -> None:
        heard.append(msg.subject)

    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            await link.jetstream.add_stream(
                StreamConfig(
                    name=streams.KEPT_REPLIES,
                    subjects=[subjects.KEPT_REPLIES],
                    storage=StorageType.MEMORY,
                    discard=DiscardPolicy.NEW,
                    discard_new_per_subject=True,
                    max_msgs_per_subject=1,
                    max_bytes=1000,
                )
            )
            await link.client.subscribe(subjects.KEPT_REPLIES, cb=on_reply)
            publisher = AnswerPublisher(link, SystemClock(), "node", "replica")
            with structlog.testing.capture_logs() as logs:
                for key, size in (("small", 10), ("small", 10), ("large", 2000)):
                    heard.clear()
                    answer = Answer(OUTCOME_OK, "", bytes(size))
                    await publisher.publish(keyed_request(key), answer, ended_s=0)
                    await link.client.flush()
                    await eventually(lambda k=key: heard == [subjects.kept_reply(k)])  # type: ignore[misc]
            assert [(entry["event"], entry["request_id"]) for entry in logs] == [
                ("answer.not_kept", "large")
            ], "the second small one is there already"


def keyed_request(key: str) -> Ongoing:
    return Ongoing(
        ack_subject="",
        envelope=RequestEnvelope(
            request_id=key, reply_subject=subjects.kept_reply(key), keep_reply=True
        ),
        delivered_s=0,
        deadline_s=SystemClock().monotonic_s() + 10,
        progress_s=0,
        queue_wait_s=0,
        delivery=1,
    )


async def serves(address: str) -> None:
    """Waits until a router knows the deployment."""

    async def answers() -> bool:
        try:
            return bool(await said(address, "ready", None, timeout_s=15))
        except (forebay.UnavailableError, forebay.DeadlineExceededError):
            return False

    await eventually(answers, timeout_s=60)
