"""A fleet on three nats-servers, each of which is killed in turn."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import numpy as np
import pytest
from nats.js.errors import APIError

import forebay
from forebay.errors import UnavailableError
from services.wire.nats_link import NatsLink
from services.wire.replicated import TooFewServersError
from services.wire.streams import ensure_requests
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer

CALLERS = 4
TASKS = 1_500
JUST_SUBMITTED = 200
WAIT_S = 60.0


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


async def streams_of(cluster: NatsCluster) -> list[Any]:
    client = await nats.connect(cluster.url.split(","), connect_timeout=10)
    try:
        return list(await client.jetstream(timeout=5).streams_info())
    finally:
        await client.close()


async def all_current(cluster: NatsCluster) -> bool:
    """Whether each stream has a leader and every server has all of it."""
    try:
        found = await streams_of(cluster)
    except (nats.errors.Error, APIError, TimeoutError):
        return False
    return bool(found) and all(
        info.cluster is not None
        and info.cluster.leader
        and all(peer.current and not peer.offline for peer in info.cluster.replicas or ())
        for info in found
    )


class Callers:
    """Callers that go on until told to stop; what they got is counted."""

    def __init__(self, routers: list[str]) -> None:
        self._routers = routers
        self._stop = asyncio.Event()
        self.answered = 0
        self.unavailable = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._call(number))

    def stop(self) -> None:
        self._stop.set()

    async def _call(self, number: int) -> None:
        async with forebay.AsyncClient(self._routers[number % len(self._routers)]) as client:
            count = 0
            while not self._stop.is_set():
                count += 1
                word = f"say {number} {count}"
                try:
                    result = await client.infer("chaos", do(word), timeout_s=WAIT_S)
                except UnavailableError:
                    self.unavailable += 1
                else:
                    assert result["SAID"][0].decode() == word
                    self.answered += 1


@pytest.mark.timeout(420)
async def test_the_loss_of_each_server_in_turn_loses_nothing(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        async with Fleet(tmp_path / "fleet", cluster.url, "--stream-replicas", "3") as fleet:
            file = write_chaos(tmp_path / "chaos", replicas=2, max_ongoing_requests=4)
            await fleet.forebay("deploy", file)
            kept = {
                info.config.name: info.config.num_replicas for info in await streams_of(cluster)
            }
            assert set(kept.values()) == {3}, kept

            await known_at_once(fleet.routers)

            callers = Callers(fleet.routers)
            calling = asyncio.create_task(callers.run())
            mapping = asyncio.create_task(map_all(fleet.routers[1]))
            for server in cluster.servers:
                before = callers.answered
                server.kill()
                await eventually(lambda b=before: callers.answered >= b + 200, WAIT_S, "answers")
                server.start()
                await eventually(lambda: all_current(cluster), WAIT_S, "the server's return")
            results = await mapping
            callers.stop()
            await calling

            assert results == [f"say {index}" for index in range(TASKS)]
            print(f"{callers.answered} calls answered, {callers.unavailable} UNAVAILABLE")
            # Each caller may meet each loss once.
            assert callers.unavailable <= CALLERS * len(cluster.servers)


async def known_at_once(routers: list[str]) -> None:
    """Whichever server is asked, what was submitted through one router is known to the other."""
    async with forebay.AsyncClient(routers[0]) as one, forebay.AsyncClient(routers[1]) as other:
        for index in range(JUST_SUBMITTED):
            handle = await one.submit("chaos", do(f"say {index}"))
            await other.task(handle.name).status()


async def map_all(router: str) -> list[str]:
    async def inputs() -> AsyncIterator[dict[str, np.ndarray]]:
        for index in range(TASKS):
            yield do(f"say {index}")

    async with forebay.AsyncClient(router) as client:
        mapped = client.map("chaos", inputs(), max_in_flight=50)
        return [result["SAID"][0].decode() async for result in mapped]


async def test_what_one_server_keeps_is_spread_once_there_are_three(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        # Nobody takes copies away by a setting that was forgotten.
        for replicas, kept in ((1, [1]), (3, [3]), (1, [3])):
            link = NatsLink("test", cluster.url, None, replicas)
            link.on_connected(lambda link=link: ensure_requests(link.jetstream))
            stopping = asyncio.Event()
            running = asyncio.create_task(link.run(stopping))
            try:
                await eventually(lambda link=link: link.connected, WAIT_S)
                await eventually(lambda kept=kept: keep(cluster, kept), WAIT_S, f"{kept} copies")
            finally:
                stopping.set()
                await running
                await link.close()


async def keep(cluster: NatsCluster, copies: list[int]) -> bool:
    try:
        found = await streams_of(cluster)
    except (nats.errors.Error, APIError, TimeoutError):
        return False
    return [info.config.num_replicas for info in found] == copies


async def test_too_few_servers_are_named(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        link = NatsLink("test", server.url, None, 3)
        await link.client.connect(server.url)
        with pytest.raises(TooFewServersError, match=r"3 servers \(stream_replicas\).*set stream_"):
            await ensure_requests(link.jetstream)
        await link.client.close()
