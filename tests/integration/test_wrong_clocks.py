"""A machine whose clock is wrong by ten minutes, or is set by as much while all is running."""

import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from forebay.v1.autoscaler_pb2 import ListScaleDecisionsRequest
from forebay.v1.node_pb2 import ListNodesRequest, Node, NodeReport
from services.autoscaler import main as autoscaler_main
from services.metrics import main as metrics_main
from services.runtime.clock import SystemClock
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, control_plane
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

WRONG_S = 600.0
REPORTS = 40
"""After the clock was set: 4 s of them, longer than both grace periods together."""


class WrongClock(SystemClock):
    """The wall clock of a machine of its own."""

    wrong_s = 0.0

    def wall_s(self) -> float:
        return super().wall_s() + self.wrong_s


class Reports:
    """Counts an agent's reports and dates them wrongly."""

    def __init__(self, wrong_s: float) -> None:
        self.wrong_s = wrong_s
        self.sent = 0

    def __call__(self, report: NodeReport) -> None:
        self.sent += 1
        report.sample_time.FromNanoseconds(int((time.time() + self.wrong_s) * 1e9))

    async def more(self) -> None:
        before = self.sent
        await eventually(lambda: self.sent >= before + REPORTS)


async def check_nothing_moved(mesh: ControlPlane, agent: Agent, replicas: set[str]) -> list[str]:
    """Returns the names of all decisions there are."""
    assert {a.replica_id for a in agent.assignments} == replicas

    async def is_there() -> bool:
        # A report may be late for a moment; a wrong clock would not go away.
        nodes = (await mesh.nodes.ListNodes(ListNodesRequest())).nodes
        return [node.state for node in nodes] == [Node.STATE_ACTIVE]

    await eventually(is_there)
    request = ListScaleDecisionsRequest(parent="deployments/add")
    decisions = (await mesh.watches.ListScaleDecisions(request)).scale_decisions
    assert {decision.target_after for decision in decisions} == {2}
    return [decision.name for decision in decisions]


@pytest.mark.parametrize("who", ["agent", "metrics", "autoscaler"])
@pytest.mark.parametrize("wrong_s", [WRONG_S, -WRONG_S])
async def test_a_wrong_clock_moves_no_replica_and_calls_nobody_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, wrong_s: float
) -> None:
    class Clock(WrongClock):
        """Of one service."""

    service = {"metrics": metrics_main, "autoscaler": autoscaler_main}.get(who)
    if service is not None:
        monkeypatch.setattr(service, "SystemClock", Clock)
        Clock.wrong_s = wrong_s
    async with control_plane(tmp_path) as mesh:
        agent = Agent("a")
        agent.amend = reports = Reports(wrong_s if who == "agent" else 0.0)
        await mesh.agent(agent)
        policy = {"queue_depth": {"max_tasks_per_replica": 1}}
        scaling = {"policy": policy, "min_replicas": 2, "max_replicas": 4}
        await mesh.create("add", scaling=scaling)
        await mesh.ready("add", 2)
        replicas = {a.replica_id for a in agent.assignments}
        await reports.more()
        decisions = await check_nothing_moved(mesh, agent, replicas)
        # Somebody sets it right, or wrong the other way.
        Clock.wrong_s, reports.wrong_s = -wrong_s, -reports.wrong_s
        await reports.more()
        assert await check_nothing_moved(mesh, agent, replicas) == decisions


@pytest.mark.parametrize("wrong_s", [WRONG_S, -WRONG_S])
async def test_an_autoscaler_with_another_clock_takes_over_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    class Clock(WrongClock):
        """Of the second one."""

    Clock.wrong_s = wrong_s
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            mesh = ControlPlane(nats, tmp_path, stack)
            await mesh.start()
            async with mesh.autoscaling():
                first = Agent("a")
                async with first.running(mesh.metrics, mesh.autoscaler):
                    await mesh.create("add", replicas=2)
                    await mesh.ready("add", 2)
            replicas = {a.replica_id for a in first.assignments}
            monkeypatch.setattr(autoscaler_main, "SystemClock", Clock)
            async with mesh.autoscaling():
                second = Agent("a")
                second.amend = reports = Reports(0.0)
                async with second.running(mesh.metrics, mesh.autoscaler):
                    await reports.more()
                    await check_nothing_moved(mesh, second, replicas)
