"""Node providers against what they speak to: a real HTTP server, real node agents."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from forebay.local import triton_setup
from forebay.v1.autoscaler_pb2 import NodeDemand
from forebay.v1.deployment_pb2 import ReplicaResources
from forebay.v1.node_pb2 import ListNodesRequest, Node
from services.autoscaler.provider import agents
from services.autoscaler.provider.local import LocalProvider
from services.autoscaler.provider.protocol import ProviderError
from services.autoscaler.provider.webhook import WebhookProvider
from services.autoscaler.settings import AutoscalerSettings
from services.runtime.clock import Clock, SystemClock
from tests.support.control_plane import ControlPlane
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

SECRET = "whsec_" + "A" * 43 + "="
NOBODY: frozenset[str] = frozenset()


def demand(*, missing: int = 1, gpus: float = 0.0, releasable: tuple[str, ...] = ()) -> NodeDemand:
    shapes = [
        NodeDemand.Shape(
            resources=ReplicaResources(gpus=gpus),
            replica_count=missing,
            deployments=["deployments/add"],
        )
    ]
    return NodeDemand(
        unplaced=shapes if missing else [],
        releasable_nodes=[f"nodes/{node}" for node in releasable],
    )


@dataclass
class Receiver:
    """A server that checks signatures, and answers what the test says."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    messages: list[dict] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.ids.append(request.headers["webhook-id"])
        self.messages.append(Webhook(SECRET).verify(body, dict(request.headers)))
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def webhook(url: str, tmp_path: Path, secret: str = SECRET) -> WebhookProvider:
    file = tmp_path / "secret"
    file.write_text(secret + "\n")
    return WebhookProvider(url, file, "lab", SystemClock())


async def test_a_webhook_is_signed_and_says_what_is_missing(tmp_path: Path) -> None:
    async with receiving() as receiver:
        provider = webhook(receiver.url, tmp_path)
        await provider.apply(demand(missing=3, gpus=0.5, releasable=("a",)), NOBODY)
    (message,) = receiver.messages
    assert message["type"] == "node.demand"
    assert message["data"] == {
        "mesh": "lab",
        "unplaced": [
            {
                "resources": {"gpus": 0.5},
                "replicaCount": 3,
                "deployments": ["deployments/add"],
            }
        ],
        "releasableNodes": ["nodes/a"],
    }


async def test_a_webhook_is_sent_again_with_the_same_id_after_a_server_error(
    tmp_path: Path,
) -> None:
    async with receiving() as receiver:
        receiver.answers = [500, 429]
        await webhook(receiver.url, tmp_path).apply(demand(), NOBODY)
    assert len(receiver.ids) == 3
    assert len(set(receiver.ids)) == 1


async def test_a_webhook_that_is_refused_is_not_sent_again(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answers = [401]
        with pytest.raises(ProviderError, match="the server answered 401; check webhook_url"):
            await webhook(receiver.url, tmp_path).apply(demand(), NOBODY)
    assert len(receiver.ids) == 1


async def test_a_webhook_is_not_sent_where_a_redirect_leads(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answers = [307]
        with pytest.raises(ProviderError, match="the server answered 307"):
            await webhook(receiver.url, tmp_path).apply(demand(), NOBODY)


async def test_a_server_that_is_not_there_is_an_error_after_a_bounded_time(
    tmp_path: Path,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/hook"
        async with asyncio.timeout(60):
            with pytest.raises(ProviderError, match="was not taken"):
                await webhook(url, tmp_path).apply(demand(), NOBODY)


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_AAAA", "whsec_***"])
async def test_an_unusable_secret_is_refused_without_being_shown(
    secret: str, tmp_path: Path
) -> None:
    with pytest.raises(ProviderError, match="it must hold whsec_") as caught:
        await webhook("http://127.0.0.1:1/", tmp_path, secret).apply(demand(), NOBODY)
    assert not secret or secret not in str(caught.value)


class Ahead(SystemClock):
    """A clock that can be put forward."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class Mesh:
    """A control plane and a local provider, which is fed by the test."""

    def __init__(self, plane: ControlPlane, tmp_path: Path, home: Path) -> None:
        self.state_dir = tmp_path / "nodes"
        self.plane = plane
        self.home = home

    def settings(self, **settings: object) -> dict[str, object]:
        return {
            "local_state_dir": self.state_dir,
            "local_triton_home": self.home,
            **settings,
        }

    def provider(self, clock: Clock | None = None, **settings: object) -> LocalProvider:
        made = AutoscalerSettings(
            node_provider="local",
            nats_url=self.plane.nats.url,
            metrics=self.plane.metrics,
            **self.settings(**settings),
        )
        return LocalProvider(made, self.plane.autoscaler, clock or SystemClock())

    async def end_agents(self) -> None:
        processes = []
        for agent in agents.running(self.state_dir).values():
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(agent.pid))
                agents.stop(agent, signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, processes, 30)

    async def nodes(self) -> dict[str, Node]:
        listed = await self.plane.nodes.ListNodes(ListNodesRequest())
        return {node.name.removeprefix("nodes/"): node for node in listed.nodes}

    async def reporting(self) -> frozenset[str]:
        nodes = await self.nodes()
        return frozenset(n for n, node in nodes.items() if node.state == Node.STATE_ACTIVE)

    async def applied(self, provider: LocalProvider, wanted: NodeDemand, nodes: set[str]) -> None:
        async def done() -> bool:
            reporting = await self.reporting()
            await provider.apply(wanted, reporting)
            return reporting == nodes and not provider.note

        await eventually(done, 90, f"{nodes} reporting")

    async def is_reporting(self, nodes: set[str]) -> frozenset[str]:
        """Those that report, once they are these: one may be late for a moment."""

        async def so() -> frozenset[str]:
            found = await self.reporting()
            assert found == nodes
            return found

        return await eventually(so, 60, f"{nodes} reporting")


@asynccontextmanager
async def mesh(tmp_path: Path, **settings: object) -> AsyncIterator[Mesh]:
    """A control plane, whose autoscaler has the local provider's settings, and its agents' end."""
    home = triton_setup.default_home()
    triton_setup.set_up(home)
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            plane = ControlPlane(nats, tmp_path, stack)
            made = Mesh(plane, tmp_path, home)
            await plane.start()
            stack.push_async_callback(made.end_agents)
            await stack.enter_async_context(plane.autoscaling(**made.settings(**settings)))
            yield made


async def test_the_local_provider_adds_one_node_at_a_time_and_releases_it(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        provider = made.provider(local_simulated_gpus=2, local_simulated_gpu_product="L4")
        wanted = demand(gpus=0.5)
        await provider.apply(wanted, NOBODY)
        await provider.apply(wanted, NOBODY)
        assert list(agents.running(made.state_dir)) == ["auto-1"]
        await made.applied(provider, demand(missing=0), {"auto-1"})
        node = (await made.nodes())["auto-1"]
        assert [gpu.simulated for gpu in node.gpus] == [True, True]

        # Still missing now that it reports: one more, and no third.
        await provider.apply(wanted, await made.is_reporting({"auto-1"}))
        assert sorted(agents.running(made.state_dir)) == ["auto-1", "auto-2"]
        await made.applied(provider, demand(missing=0), {"auto-1", "auto-2"})

        away = demand(missing=0, releasable=("auto-2", "somebody-elses"))
        await made.applied(provider, away, {"auto-1"})
        await eventually(lambda: list(agents.running(made.state_dir)) == ["auto-1"], 60)


async def test_agents_outlive_their_autoscaler_and_the_next_one_finds_them(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        first = made.provider()
        await first.apply(demand(), NOBODY)
        await made.applied(first, demand(missing=0), {"auto-1"})
        (agent,) = agents.running(made.state_dir).values()
        assert psutil.Process(agent.pid).ppid() != os.getpid()

        # Killed before it wrote down what it had started.
        (made.state_dir / "auto-1" / "agent.json").unlink()
        second = made.provider(local_max_nodes=1)
        reporting = await made.is_reporting({"auto-1"})
        process = psutil.Process(agent.pid)
        await second.apply(demand(missing=0, releasable=("auto-1",)), reporting)
        gone = await asyncio.to_thread(psutil.wait_procs, [process], 60)
        assert not gone[1]
        assert agents.running(made.state_dir) == {}


async def test_the_local_provider_says_when_it_cannot_help(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        provider = made.provider(local_max_nodes=1)
        await provider.apply(demand(gpus=1), NOBODY)
        assert provider.note == (
            "no node that is started here would fit deployments/add: it needs 1 GPU, no node has "
            "one"
        )
        assert agents.running(made.state_dir) == {}
        await provider.apply(demand(), NOBODY)
        assert provider.note == ""
        await made.applied(provider, demand(missing=0), {"auto-1"})
        await provider.apply(demand(), await made.is_reporting({"auto-1"}))
        assert provider.note.startswith("local_max_nodes = 1: so many node agents run already")


async def test_replicas_without_a_place_get_a_node_that_is_released_when_it_is_idle(
    tmp_path: Path,
) -> None:
    async with mesh(tmp_path, node_provider="local", node_idle_delay_s=0.5, local_slots=1) as made:
        plane = made.plane
        await plane.create("add", replicas=1)

        async def is_assigned() -> bool:
            status = (await plane.get("add")).status
            return status.assigned_replica_count == 1 and not status.unplaced_replica_count

        await eventually(is_assigned, 90)
        assert list(agents.running(made.state_dir)) == ["auto-1"]
        await plane.delete("add")
        await eventually(lambda: not agents.running(made.state_dir), 60)


async def test_an_agent_that_cannot_run_is_noted_and_not_started_again_at_once(
    tmp_path: Path,
) -> None:
    async with mesh(tmp_path) as made:
        made.home = tmp_path / "no-triton"
        provider = made.provider()

        async def is_noted() -> bool:
            await provider.apply(demand(), NOBODY)
            return "auto-1 ended; its log is in" in provider.note

        await eventually(is_noted, 60)
        await provider.apply(demand(), NOBODY)
        assert agents.running(made.state_dir) == {}
        assert "process.failed" in (made.state_dir / "auto-1" / "agent.log").read_text()


async def test_an_agent_that_hangs_is_told_to_end_and_then_made_to(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        clock = Ahead()
        provider = made.provider(clock)
        await provider.apply(demand(), NOBODY)
        (agent,) = agents.running(made.state_dir).values()
        os.kill(agent.pid, signal.SIGSTOP)
        clock.ahead_s += 31
        await provider.apply(demand(), NOBODY)
        assert provider.note.startswith("the node agent of auto-1 does not report; its log is in")
        # It is not taken for one that may still report, and there is no second one at once.
        await provider.apply(demand(), NOBODY)
        assert list(agents.running(made.state_dir)) == ["auto-1"]
        clock.ahead_s += 61
        assert provider.busy
        await provider.apply(demand(missing=0), NOBODY)
        await eventually(lambda: not agents.running(made.state_dir), 60)
        await provider.apply(demand(missing=0), NOBODY)
        assert not provider.busy


async def test_a_process_that_was_given_the_id_of_an_agent_is_left_alone(tmp_path: Path) -> None:
    other = psutil.Process()
    directory = tmp_path / "auto-1"
    directory.mkdir()
    record = directory / "agent.json"
    record.write_text(f'{{"pid": {other.pid}, "start_time_s": {other.create_time() - 100}}}')
    assert agents.running(tmp_path) == {}
    assert not record.exists()
