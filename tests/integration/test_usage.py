"""What replicas held, and what tasks used, on a real nats-server: counted once over restarts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from forebay.v1.deployment_pb2 import ListDeploymentsRequest
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.model_pb2_grpc import ModelServiceStub
from forebay.v1.task_record_pb2 import UsageNote
from forebay.v1.usage_pb2 import ListUsageRequest, Usage
from forebay.v1.usage_pb2_grpc import UsageServiceStub
from services.autoscaler.main import serve as serve_autoscaler
from services.autoscaler.settings import AutoscalerSettings
from services.autoscaler.usage import accountant
from services.wire import usage
from services.wire.channels import open_channel
from services.wire.nats_link import NatsLink
from services.wire.tasks import subjects
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, linked, refusal
from tests.support.eventually import eventually
from tests.support.forebay_up import Ran, run_forebay
from tests.support.free_port import free_address
from tests.support.nats_server import NatsServer
from tests.support.serving import serving

CHECKPOINT_S = 1.0
"""In place of 10 s, to be quick."""
WRITTEN_S = 60.0


class Accounted:
    """Metrics and, as often as a test likes, an autoscaler at the same address."""

    def __init__(self, mesh: ControlPlane, tmp_path: Path) -> None:
        self.mesh = mesh
        self._tmp_path = tmp_path
        self._listen = free_address()

    @asynccontextmanager
    async def autoscaler(self) -> AsyncIterator[None]:
        settings = {"nats_url": self.mesh.nats.url, "listen": self._listen, "node_grace_s": 60}
        async with serving(
            serve_autoscaler,
            AutoscalerSettings,
            self._tmp_path / "autoscaler.json",
            metrics=self.mesh.metrics,
            **settings,
        ):
            await eventually(self._answers, timeout_s=40)
            yield

    async def _answers(self) -> bool:
        try:
            await self.mesh.deployments.ListDeployments(ListDeploymentsRequest())
            await self.usage.ListUsage(ListUsageRequest())
        except grpc.aio.AioRpcError:
            return False
        return True

    async def connect(self, stack: AsyncExitStack) -> None:
        """Has `mesh` and `usage` talk to whichever autoscaler runs."""
        self.mesh.autoscaler = self._listen
        channel = await stack.enter_async_context(open_channel(self._listen))
        self.usage = UsageServiceStub(channel)
        self.mesh.deployments = DeploymentServiceStub(channel)
        self.mesh.models = ModelServiceStub(channel)

    async def rows(self, **request: object) -> list[Usage]:
        """All rows, page by page."""
        found: list[Usage] = []
        token = ""
        while True:
            asked = ListUsageRequest(page_token=token, **request)
            page = await self.usage.ListUsage(asked, wait_for_ready=True)
            found += page.usage
            token = page.next_page_token
            if not token:
                return found

    async def seconds(self, deployment: str) -> tuple[float, float]:
        """Seconds of replicas and of GPUs."""
        rows = await self.rows(parent=f"deployments/{deployment}")
        return (
            sum(row.replica_time.ToNanoseconds() / 1e9 for row in rows),
            sum(row.gpu_time.ToNanoseconds() / 1e9 for row in rows),
        )


@pytest.fixture
async def accounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Accounted]:
    monkeypatch.setattr(accountant, "CHECKPOINT_S", CHECKPOINT_S)
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            mesh = ControlPlane(nats, tmp_path, stack)
            await mesh.start()
            made = Accounted(mesh, tmp_path)
            await made.connect(stack)
            yield made


async def test_a_replica_counts_from_its_assignment_to_its_end_over_a_restart(
    accounted: Accounted,
) -> None:
    mesh, agent = accounted.mesh, Agent("a", gpus=("a-0",))
    async with accounted.autoscaler():
        await mesh.agent(agent)
        resources = {"gpus": 0.5}
        asked_s = time.monotonic()
        await mesh.create("add", replicas=2, resources=resources)
        await eventually(lambda: len(agent.assignments) == 2)
        began_s = time.monotonic()
        await eventually(lambda: _counted(accounted, 1.0), timeout_s=WRITTEN_S)
    # Nobody leads for a while, and what is assigned is held all the same.
    async with linked(mesh.nats.url) as link:
        open_before = await _kept(link, usage.held("add"))
        assert len(json.loads(open_before)["replicas"]) == 2
        # As if it had ended before it wrote the hour, which is written from what is kept beside it.
        hours = json.loads(open_before)["hours"]
        assert hours
        for hour in hours:
            subject = usage.hour(*accountant.day_and_hour(int(hour) * 3600.0), "add")
            await link.jetstream.publish(subject, b'{"replica_s":0,"gpu_s":0}')
    async with accounted.autoscaler():
        gap_s = time.monotonic() - began_s
        await eventually(lambda: _counted(accounted, 2 * gap_s - 1), timeout_s=WRITTEN_S)
        agent.slow_to_stop = True
        await mesh.delete("add")
        await eventually(lambda: agent.told[-1:] and not agent.assignments)
        unassigned_s = time.monotonic()
        draining = (await accounted.seconds("add"))[0] + 2
        await eventually(lambda: _counted(accounted, draining), timeout_s=WRITTEN_S)
        agent.slow_to_stop = False
        ended_s = time.monotonic()
        async with linked(mesh.nats.url) as link:
            await eventually(lambda: _nothing_open(link), timeout_s=WRITTEN_S)
        closed_s = time.monotonic()
        replica_s, gpu_s = await accounted.seconds("add")
    assert ended_s - unassigned_s > 0
    # Each end is known to a second or two, and to what lies between its cause and its effect.
    assert 2 * (ended_s - began_s) - 6 < replica_s < 2 * (closed_s - asked_s) + 6
    assert gpu_s == pytest.approx(replica_s / 2, abs=0.01)


async def test_nothing_is_lost_while_nats_is_away(accounted: Accounted) -> None:
    mesh, agent = accounted.mesh, Agent("a")
    async with accounted.autoscaler():
        await mesh.agent(agent)
        asked_s = time.monotonic()
        await mesh.create("add", replicas=1)
        await eventually(lambda: len(agent.assignments) == 1)
        began_s = time.monotonic()
        await eventually(lambda: _counted(accounted, 1.0), timeout_s=WRITTEN_S)
        mesh.nats.restart()
        held_s = time.monotonic() - began_s
        await eventually(lambda: _counted(accounted, held_s), timeout_s=WRITTEN_S)
        replica_s, _ = await accounted.seconds("add")
    assert replica_s < time.monotonic() - asked_s + 2


async def test_each_note_counts_once_whenever_the_autoscaler_ends(accounted: Accounted) -> None:
    async with linked(accounted.mesh.nats.url) as link:
        async with accounted.autoscaler():
            for batch in ("b1", "b1", "b2", ""):
                await _note(link, batch)
            await link.jetstream.publish(subjects.usage_note("add"), b"\xff\xff no note")
            await eventually(lambda: _attempts(accounted, 12))
        position = await _kept(link, usage.POSITION)
        # As if it had ended after the sums and before the place: all are read again.
        went_back = {**json.loads(position), "sequence": 0}
        await link.jetstream.publish(usage.POSITION, json.dumps(went_back).encode())
        await _note(link, "b2")
        async with accounted.autoscaler():
            await eventually(lambda: _attempts(accounted, 15))

            async def caught_up() -> bool:
                return json.loads(await _kept(link, usage.POSITION))["sequence"] == 6

            await eventually(caught_up)
            rows = await accounted.rows(by_batch=True, page_size=1)
    found = {(row.tenant, row.batch): row for row in rows}
    assert {who: row.attempt_count for who, row in found.items()} == {
        ("team", ""): 3,
        ("team", "b1"): 6,
        ("team", "b2"): 6,
    }
    assert found["team", "b1"].replica_time.ToMilliseconds() == 3000
    assert found["team", "b1"].gpu_time.ToMilliseconds() == 1500
    assert found["team", "b1"].deployment == "deployments/add"


async def test_the_command_line_sums_what_was_used(accounted: Accounted) -> None:
    async with linked(accounted.mesh.nats.url) as link, accounted.autoscaler():
        for batch in ("b1", "b2"):
            await _note(link, batch)
        await eventually(lambda: _attempts(accounted, 6))

        async def said(*arguments: str) -> Ran:
            where = ("--autoscaler", accounted.mesh.autoscaler)
            return await asyncio.to_thread(run_forebay, "usage", *arguments, *where)

        lines = (await said("add", "--by-batch", "-o", "csv")).ok().out.splitlines()
        assert lines == [
            "deployment,tenant,batch,attempt_count,replica_s,gpu_s",
            "add,team,b1,3,1.5,0.75",
            "add,team,b2,3,1.5,0.75",
        ]
        table = (await said("--by-batch")).ok().out.splitlines()
        assert table[0].split()[:4] == ["DEPLOYMENT", "TENANT", "BATCH", "ATTEMPTS"]
        assert table[-1].split() == ["total", "6", "0.001", "0.000", "1.5"]
        (hour, _) = (await said("--by-batch", "--by-hour", "-o", "json")).json()
        assert hour["hour"].endswith(":00Z")
        assert "no replicas in the last 2d" in (await said("--since", "2d")).ok().err
        wrong = await said("--since", "soon")
        assert (wrong.code, "such as 24h or 7d" in wrong.err) == (2, True)


async def test_what_cannot_be_listed_says_why(accounted: Accounted) -> None:
    async with accounted.autoscaler():
        for request, said in (
            (ListUsageRequest(parent="add"), "parent: 'add' is not a deployment"),
            (ListUsageRequest(page_size=-1), "page_size = -1: it must be 0 or more"),
            (ListUsageRequest(page_token="x"), "page_token = 'x': not a token of this list"),
            (
                ListUsageRequest(begin_time={"seconds": 7200}, end_time={"seconds": 3600}),
                "begin_time = 1970-01-01T02:00:00+00:00 is after end_time",
            ),
        ):
            code, details = await refusal(accounted.usage.ListUsage(request))
            assert (code, said in details) == (grpc.StatusCode.INVALID_ARGUMENT, True), details


async def _counted(accounted: Accounted, least_s: float) -> bool:
    try:
        return (await accounted.seconds("add"))[0] >= least_s
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


async def _attempts(accounted: Accounted, count: int) -> bool:
    return sum(row.attempt_count for row in await accounted.rows(by_batch=True)) == count


async def _kept(link: NatsLink, subject: str) -> bytes:
    return (await link.jetstream.get_last_msg(usage.USAGE, subject)).data or b""


async def _nothing_open(link: NatsLink) -> bool:
    return not json.loads(await _kept(link, usage.held("add")))["replicas"]


async def _note(link: NatsLink, batch: str) -> None:
    note = UsageNote(deployment="add", tenant="team", batch=batch, attempt_count=3)
    note.replica_time.FromMilliseconds(1500)
    note.gpu_time.FromMilliseconds(750)
    await link.jetstream.publish(subjects.usage_note("add"), note.SerializeToString())
