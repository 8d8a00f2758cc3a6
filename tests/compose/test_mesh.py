"""The mesh of deploy/compose.yaml: used, scaled, broken, watched, and gone without a trace."""

import asyncio
import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import forebay
from tests.compose.callers import WAIT_S, Callers, answers, do, map_tasks
from tests.compose.engine import docker
from tests.compose.images import Images
from tests.compose.stack import Stack
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(900)

TASKS = 400


@pytest.fixture(scope="module")
def stack(built: Images, directory: Path) -> Iterator[Stack]:
    with Stack(f"forebay-test-{secrets.token_hex(3)}", directory, built, "compose.yaml") as up:
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
    assert "README.md" in stack.forebay("demo", "--use-running", timeout_s=600)


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
    await eventually(lambda: chaos.healthy(agent), WAIT_S, "the agent's restart")
    await answers(callers, 20)
    assert kept & set(await asyncio.to_thread(chaos.replicas)), "containers were not adopted"
    assert callers.unavailable == 0

    # A Triton.
    await asyncio.to_thread(chaos.crash, (await asyncio.to_thread(chaos.replicas))[0])
    await answers(callers, 100)
    assert callers.unavailable == 0

    # The autoscaler that leads.
    autoscaler = chaos.container("autoscaler")
    await asyncio.to_thread(chaos.crash, autoscaler)
    await answers(callers, 20)
    await eventually(lambda: chaos.healthy(autoscaler), WAIT_S, "the autoscaler's restart")
    assert callers.unavailable == 0

    # nats-server: callers may be told UNAVAILABLE while it is away.
    await asyncio.to_thread(chaos.crash, chaos.container("nats"))
    await answers(callers, 50)

    assert await mapping == [f"say {index}" for index in range(TASKS)]
    callers.stop()
    await calling


_REACHED = """
import socket, sys
for where in sys.argv[1:]:
    host, _, port = where.partition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError:
        continue
    print(where)
"""


async def test_a_replica_reaches_its_agents_receiver_of_spans_and_nothing_else(
    chaos: Stack,
) -> None:
    callers = Callers(chaos.addresses["router"])
    calling = asyncio.create_task(callers.run(1))
    try:
        await answers(callers, 5)
        (replica, *_) = await asyncio.to_thread(chaos.replicas)
        (network,) = json.loads(docker("network", "inspect", f"{chaos.project}-replicas"))
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        inside = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        nats = docker("inspect", "--format", inside, chaos.container("nats"))
        with socket.create_server(("0.0.0.0", 0)) as of_this_machine:
            port = of_this_machine.getsockname()[1]
            targets = ["node-agent:4318", "node-agent:7706", f"{gateway}:{port}", f"{nats}:4222"]
            command = ("exec", replica, "python3", "-c", _REACHED, *targets)
            reached = await asyncio.to_thread(docker, *command)
    finally:
        callers.stop()
        await calling
    assert reached.split() == ["node-agent:4318"]


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

    await eventually(complete, WAIT_S, "spans of router, agent and Triton")


async def test_prometheus_scrapes_the_mesh_and_has_its_rules(chaos: Stack) -> None:
    def scraped() -> bool:
        found = chaos.ask("prometheus", "/api/v1/targets")["data"]["activeTargets"]
        assert {target["health"] for target in found} == {"up"}, found
        asked = chaos.ask("prometheus", "/api/v1/query?query=forebay_node_up")
        assert [one["value"][1] for one in asked["data"]["result"]] == ["1"], json.dumps(asked)
        return True

    # What was killed before may have been away at the last scrape.
    await eventually(scraped, WAIT_S, "all targets up")
    assert chaos.ask("prometheus", "/api/v1/rules")["data"]["groups"]
