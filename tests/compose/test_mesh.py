"""The mesh of deploy/compose.yaml: used, scaled, broken, watched, and gone without a trace."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import forebay
from forebay.errors import UnavailableError
from tests.compose.engine import docker
from tests.compose.images import Images
from tests.compose.stack import Stack
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(900)

WAIT_S = 120.0
CALLERS = 4
TASKS = 400


@pytest.fixture(scope="module")
def stack(built: Images, directory: Path) -> Iterator[Stack]:
    with Stack(
        f"forebay-test-{directory.name[-8:].lower()}", directory, built, "compose.yaml"
    ) as up:
        yield up
    assert up.left() == [], "containers, networks or volumes were left behind"


@pytest.fixture(scope="module")
def chaos(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The mesh with a deployment from no replica to three."""
    scaling = {
        "min_replicas": 0,
        "max_replicas": 3,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0,
        "downscale_delay_s": 2,
        "downscale_to_zero_delay_s": 4,
        "look_back_period_s": 2,
    }
    file = write_chaos(
        tmp_path_factory.mktemp("chaos"),
        scaling=scaling,
        max_ongoing_requests=2,
        request_timeout_s=60,
    )
    stack.forebay("deploy", "--no-wait", file)
    return stack


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


def said(result: forebay.InferResult) -> str:
    word: bytes = result["SAID"][0]
    return word.decode()


class Callers:
    """Callers that go on until told to stop; what they got is counted."""

    def __init__(self, router: str, wait_s: float = 0.05) -> None:
        self._router = router
        self._wait_s = wait_s
        self._stopping = asyncio.Event()
        self.answered = 0
        self.unavailable = 0

    async def run(self, count: int = CALLERS) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._call())

    def stop(self) -> None:
        self._stopping.set()

    async def _call(self) -> None:
        async with forebay.AsyncClient(self._router) as client:
            while not self._stopping.is_set():
                try:
                    result = await client.infer("chaos", do(f"wait:{self._wait_s}"), timeout_s=60)
                except UnavailableError:
                    self.unavailable += 1
                    await asyncio.sleep(0.2)
                else:
                    assert said(result) == f"wait:{self._wait_s}"
                    self.answered += 1


async def answers(callers: Callers, count: int) -> None:
    """Waits until so many more calls were answered."""
    before = callers.answered
    await eventually(lambda: callers.answered >= before + count, WAIT_S, f"{count} answers")


async def map_tasks(router: str, count: int) -> list[str]:
    async def inputs():  # type: ignore[no-untyped-def]
        for index in range(count):
            yield do(f"say {index}")

    async with forebay.AsyncClient(router) as client:
        return [said(result) async for result in client.map("chaos", inputs(), max_in_flight=40)]


def test_every_service_is_healthy_and_runs_as_no_root(stack: Stack) -> None:
    found = stack.services()
    states = {name: (one["State"], one["Health"]) for name, one in found.items()}
    ended = {name for name, (state, _) in states.items() if state == "exited"}
    assert {name.rpartition(f"{stack.project}-")[2] for name in ended} == {"init-1", "triton-1"}
    assert all(health == "healthy" for name, (_, health) in states.items() if name not in ended)
    users = {
        name: docker("inspect", "--format", "{{.Config.User}}", one["ID"])
        for name, one in found.items()
        if name not in ended
    }
    assert all(user.split(":")[0] not in {"", "0", "root"} for user in users.values()), users


def test_the_demo_works_against_it(stack: Stack) -> None:
    assert "README.md" in stack.forebay("demo", "--mesh", timeout_s=600)


async def test_replicas_go_from_none_to_three_and_back(chaos: Stack) -> None:
    await eventually(lambda: not chaos.replicas(), WAIT_S, "no replica")
    callers = Callers(chaos.addresses["router"], wait_s=0.2)
    calling = asyncio.create_task(callers.run(12))
    try:
        await eventually(lambda: len(chaos.replicas()) == 3, WAIT_S, "three replicas")
        await answers(callers, 50)
    finally:
        callers.stop()
        await calling
    assert callers.unavailable == 0
    await eventually(lambda: not chaos.replicas(), WAIT_S, "no replica again")


async def test_whatever_is_killed_every_call_and_task_comes_to_its_end(chaos: Stack) -> None:
    router = chaos.addresses["router"]
    callers = Callers(router)
    calling = asyncio.create_task(callers.run())
    await answers(callers, 20)
    mapping = asyncio.create_task(map_tasks(router, TASKS))
    agent = chaos.container("node-agent")

    # An agent: its containers stay, and its successor adopts them.
    kept = set(await asyncio.to_thread(chaos.replicas))
    await asyncio.to_thread(chaos.crash, agent)
    await answers(callers, 20)
    await eventually(lambda: restarted(chaos, "node-agent", 1), WAIT_S, "the agent's restart")
    await answers(callers, 20)
    assert kept & set(await asyncio.to_thread(chaos.replicas)), "containers were not adopted"
    assert callers.unavailable == 0

    # A Triton.
    await asyncio.to_thread(chaos.crash, (await asyncio.to_thread(chaos.replicas))[0])
    await answers(callers, 100)
    assert callers.unavailable == 0

    # The autoscaler that leads.
    await asyncio.to_thread(chaos.crash, chaos.container("autoscaler"))
    await answers(callers, 20)
    await eventually(lambda: restarted(chaos, "autoscaler", 1), WAIT_S, "the autoscaler's restart")
    assert callers.unavailable == 0

    # nats-server: callers may be told UNAVAILABLE while it is away.
    await asyncio.to_thread(chaos.crash, chaos.container("nats"))
    await answers(callers, 50)

    assert await mapping == [f"say {index}" for index in range(TASKS)]
    callers.stop()
    await calling


def restarted(stack: Stack, service: str, times: int) -> bool:
    form = "{{.RestartCount}} {{.State.Health.Status}}"
    count, health = docker("inspect", "--format", form, stack.container(service)).split()
    return int(count) >= times and health == "healthy"


async def test_the_trace_of_a_call_has_every_hop(chaos: Stack) -> None:
    async with forebay.AsyncClient(chaos.addresses["router"]) as client:
        result = await client.infer("chaos", do("say hello"), timeout_s=60)
    trace_id = result.trace_id
    assert trace_id

    def spans() -> set[tuple[str, str]]:
        found = chaos.ask("jaeger", f"/spans?trace_id={trace_id}")
        return {(span["service"], span["name"]) for span in found}

    def complete() -> bool:
        services = {service for service, _ in spans()}
        return services >= {"forebay-router", "forebay-node-agent", "triton"}

    await eventually(complete, 60, "spans of router, agent and Triton")


def test_prometheus_scrapes_the_mesh_and_has_its_rules(chaos: Stack) -> None:
    found = chaos.ask("prometheus", "/api/v1/targets")["data"]["activeTargets"]
    assert {target["health"] for target in found} == {"up"}, found
    assert chaos.ask("prometheus", "/api/v1/rules")["data"]["groups"]
    asked = chaos.ask("prometheus", "/api/v1/query?query=forebay_node_up")
    assert [one["value"][1] for one in asked["data"]["result"]] == ["1"], json.dumps(asked)
