"""The fleet of deploy/compose.fleet.yaml: any one of its parts may go."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.callers import WAIT_S, Callers, answers, map_tasks
from tests.compose.images import Images
from tests.compose.stack import Stack
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(900)

TASKS = 300
NODES = 3

_TAKEN = "leadership.taken"
_OF_LEADERS = {_TAKEN, *(f"leadership.{word}" for word in ("other", "lost", "released", "beaten"))}


@pytest.fixture(scope="module")
def fleet(
    built: Images, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    project = f"forebay-test-{secrets.token_hex(3)}"
    with Stack(project, directory, built, "compose.yaml", "compose.fleet.yaml") as up:
        file = write_chaos(
            tmp_path_factory.mktemp("chaos"),
            replicas=NODES,
            placement="spread",
            max_ongoing_requests=2,
            request_timeout_s=60,
        )
        up.forebay("deploy", file)
        yield up
    assert up.left() == [], "containers, networks or volumes were left behind"


def leader(fleet: Stack) -> str:
    """The service whose autoscaler leads."""
    found = [
        service
        for service in ("autoscaler", "autoscaler-2")
        if leads(fleet.compose("logs", "--no-color", "--no-log-prefix", service))
    ]
    assert len(found) == 1, found
    return found[0]


def leads(log: str) -> bool:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    words = [line["event"] for line in lines if line["event"] in _OF_LEADERS]
    return bool(words) and words[-1] == _TAKEN


async def test_each_node_has_a_replica(fleet: Stack) -> None:
    def each_has_one() -> bool:
        nodes = json.loads(fleet.forebay("nodes", "-o", "json"))
        return [len(node["replicas"]) for node in nodes] == [1] * NODES

    await eventually(each_has_one, WAIT_S, "a replica on each node")
    assert len(fleet.replicas()) == NODES


async def test_the_loss_of_any_part_stops_nothing(fleet: Stack) -> None:
    # Each caller has a router of its own; the second one is never killed.
    callers = [Callers(fleet.addresses[router]) for router in ("router", "router_2")]
    calling = [asyncio.create_task(one.run(2)) for one in callers]
    mapping = asyncio.create_task(map_tasks(fleet.addresses["router_2"], TASKS))
    for service in (await asyncio.to_thread(leader, fleet), "nats-2", "node-agent-3"):
        container = await asyncio.to_thread(fleet.container, service)
        await asyncio.to_thread(fleet.crash, container)
        for one in callers:
            await answers(one, 30)
        await eventually(lambda c=container: fleet.healthy(c), WAIT_S, f"{service} again")
    assert [one.unavailable for one in callers] == [0, 0]

    await asyncio.to_thread(fleet.crash, await asyncio.to_thread(fleet.container, "router"))
    for one in callers:
        await answers(one, 30)
    assert callers[1].unavailable == 0

    assert await mapping == [f"say {index}" for index in range(TASKS)]
    for one in callers:
        one.stop()
    await asyncio.gather(*calling)
