"""Several autoscalers on one nats-server: one leads, and its loss changes nothing but its name."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats.js.errors
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forebay.v1.autoscaler_pb2 import (
    Assignment,
    AssignmentSet,
    GetNodeDemandRequest,
    Leadership,
)
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.model_pb2_grpc import ModelServiceStub
from services.autoscaler.leadership import LEADER, seal
from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from tests.support.agent import Agent
from tests.support.autoscaler_process import AutoscalerProcess, running_autoscaler
from tests.support.control_plane import ControlPlane, control_plane, linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

FAILOVER_S = 45.0
RELEASED_S = 7.0
"""Less than a lease takes to run out."""


class Pair:
    """Metrics and two autoscalers on one nats-server, the first of which leads."""

    def __init__(self, mesh: ControlPlane, first: AutoscalerProcess, second: AutoscalerProcess):
        self.mesh = mesh
        self.first, self.second = first, second

    def talk_to(self, autoscaler: AutoscalerProcess) -> None:
        """Has the calls of `mesh` go to one of the two."""
        self.mesh.deployments = DeploymentServiceStub(autoscaler.channel)
        self.mesh.models = ModelServiceStub(autoscaler.channel)

    def terms(self) -> list[int]:
        """Every term that either has ever taken, in the order of their clock, which is one."""
        lines = self.first.logged("leadership.taken") + self.second.logged("leadership.taken")
        return [int(line["epoch"]) for line in sorted(lines, key=lambda line: line["timestamp"])]

    async def one_leads(self) -> bool:
        """Whether exactly one of the two leads."""
        epochs = [await self.first.epoch(), await self.second.epoch()]
        return sum(epoch > 0 for epoch in epochs) == 1


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        nats_server = stack.enter_context(NatsServer(tmp_path / "nats"))
        mesh = ControlPlane(nats_server, tmp_path, stack)
        await mesh.start()
        made = []
        for name in ("first", "second"):
            starting = running_autoscaler(tmp_path / name, nats_server.url, mesh.metrics)
            made.append(await stack.enter_async_context(starting))
            await eventually(made[0].epoch)
        pair = Pair(mesh, *made)
        yield pair
        terms = pair.terms()
        assert terms == sorted(set(terms)), "a term was taken twice"


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """Metrics, and no autoscaler yet."""
    async with AsyncExitStack() as stack:
        nats_server = stack.enter_context(NatsServer(tmp_path / "nats"))
        mesh = ControlPlane(nats_server, tmp_path, stack)
        await mesh.start()
        yield mesh


@asynccontextmanager
async def mirrored(url: str) -> AsyncIterator[KvMirror]:
    """The assignments as one more process has read them; it does not follow them further."""
    async with linked(url) as link:
        mirror = KvMirror(link, streams.assignments_bucket)
        await mirror.reload()
        yield mirror


async def kept(link: NatsLink, node: str) -> AssignmentSet:
    bucket = await streams.assignments_bucket(link.jetstream)
    entry = await bucket.get(f"node.{node}")
    return AssignmentSet.FromString(entry.value or b"")


async def test_a_standby_serves_all_but_assignments_and_names_the_leader(pair: Pair) -> None:
    await eventually(lambda: _names(pair.second, leader=pair.first))
    await eventually(lambda: _is_healthy(pair.first))
    await eventually(lambda: _is_healthy(pair.second))
    node = Agent("node-a")
    async with node.running(pair.mesh.metrics, pair.first.address):
        pair.talk_to(pair.second)
        await pair.mesh.create("add", replicas=2)
        await pair.mesh.ready("add", 2)
        assert len(node.assignments) == 2


async def test_a_leader_is_known_by_the_address_that_it_advertises(
    tmp_path: Path, control: ControlPlane
) -> None:
    async with control.autoscaling(advertise="autoscaler-1:7702"):
        other = running_autoscaler(tmp_path / "other", control.nats.url, control.metrics)
        async with other as standby:

            async def told() -> bool:
                said = "this autoscaler stands by; autoscaler-1:7702 leads"
                return await standby.refusal() == said

            await eventually(told)


async def test_a_standby_says_what_the_leader_knows_of_missing_machines(pair: Pair) -> None:
    await eventually(lambda: _names(pair.second, leader=pair.first))
    pair.talk_to(pair.second)
    await pair.mesh.create("add", replicas=2)

    async def is_known() -> bool:
        stub = AutoscalerServiceStub(pair.second.channel)
        demand = (await stub.GetNodeDemand(GetNodeDemandRequest())).node_demand
        return [shape.replica_count for shape in demand.unplaced] == [2]

    await eventually(is_known)


async def _is_healthy(autoscaler: AutoscalerProcess) -> bool:
    stub = health_pb2_grpc.HealthStub(autoscaler.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    return answer.status == health_pb2.HealthCheckResponse.SERVING


async def _names(standby: AutoscalerProcess, leader: AutoscalerProcess) -> bool:
    why = await standby.refusal()
    return why == f"this autoscaler stands by; {leader.address} leads"


async def test_a_leader_that_is_killed_is_replaced_and_nothing_else_changes(pair: Pair) -> None:
    async with linked(pair.mesh.nats.url) as link:
        async with Agent("node-a").running(pair.mesh.metrics, pair.first.address):
            pair.talk_to(pair.second)
            await pair.mesh.create("add", replicas=2)
            await pair.mesh.ready("add", 2)
            before = await pair.first.told("node-a")
            pair.first.send(signal.SIGKILL)
            after_epoch = await eventually(pair.second.epoch, timeout_s=FAILOVER_S)
            assert after_epoch > before.epoch
            after = await pair.second.told("node-a")
            # Sealed before it led: the former leader's writes are all too late.
            assert (await kept(link, "node-a")).epoch == after_epoch
            # It has looked at the mesh, and decided, when a change has been acted on.
            await pair.mesh.update("add", "replicas", replicas=3)
            await eventually(lambda: _has_replicas(link, "node-a", 3))
    assert list(after.assignments) == list(before.assignments)
    assert after.revision == before.revision
    later = await eventually(lambda: pair.second.logged("assignments.written"))
    assert len(later) == 1, "the failover itself changed assignments"


async def _has_replicas(link: NatsLink, node: str, count: int) -> bool:
    return len((await kept(link, node)).assignments) == count


async def test_a_leader_that_was_paused_wakes_up_as_a_standby(pair: Pair) -> None:
    async with linked(pair.mesh.nats.url) as link:
        async with Agent("node-a", slots=8).running(pair.mesh.metrics, pair.first.address):
            pair.talk_to(pair.second)
            await pair.mesh.create("add", replicas=2)
            await pair.mesh.ready("add", 2)
            # It wakes up with a decision to make, seeing none of what happened meanwhile.
            pair.first.send(signal.SIGSTOP)
            await pair.mesh.update("add", "replicas", replicas=3)
            epoch = await eventually(pair.second.epoch, timeout_s=FAILOVER_S)
            await eventually(lambda: _has_replicas(link, "node-a", 3))
            decided = await kept(link, "node-a")
            assert decided.epoch == epoch
            pair.first.send(signal.SIGCONT)
            await eventually(lambda: _names(pair.first, leader=pair.second))
            await eventually(lambda: pair.first.logged("leadership.lost"))
            assert not pair.first.logged("loop.write_failed")
            assert await kept(link, "node-a") == decided
            assert await pair.second.epoch() == epoch


async def test_a_leader_that_stops_in_order_is_replaced_at_once(pair: Pair) -> None:
    epoch = await pair.first.epoch()
    started_s = time.monotonic()
    pair.first.send(signal.SIGTERM)
    assert await eventually(pair.second.epoch) == epoch + 1
    assert time.monotonic() - started_s < RELEASED_S
    await eventually(lambda: pair.first.logged("leadership.released"))
    [line] = pair.second.logged("leadership.taken")
    assert line["reason"] == "nobody holds the lease"


async def test_one_leads_after_a_crash_of_nats(pair: Pair) -> None:
    await asyncio.to_thread(pair.mesh.nats.restart)
    await eventually(pair.one_leads, timeout_s=FAILOVER_S)


async def test_the_same_one_leads_after_nats_was_away_for_long(pair: Pair) -> None:
    epoch = await pair.first.epoch()
    pair.mesh.nats.kill()
    await eventually(lambda: pair.first.logged("leadership.lost"), timeout_s=FAILOVER_S)
    assert not await pair.first.epoch()
    assert not await pair.second.epoch()
    await asyncio.to_thread(pair.mesh.nats.start)
    assert await eventually(pair.first.epoch, timeout_s=FAILOVER_S) > epoch
    assert not await pair.second.epoch()


async def test_a_write_begun_before_the_take_over_is_refused_after_it(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with mirrored(server.url) as old, mirrored(server.url) as new:
            held = AssignmentSet(assignments=[Assignment(replica_id="r")], revision=7, epoch=1)
            for node in ("a", "b"):
                await old.put(f"node.{node}", held.SerializeToString(), 0)
            # Paused here: past its fence, with the revision that its write is to be based on.
            based_on = old.entries("node.")["a"].revision
            await seal(new, 2)
            late = AssignmentSet(revision=8, epoch=1).SerializeToString()
            with pytest.raises(nats.js.errors.KeyWrongLastSequenceError):
                await old.put("node.a", late, based_on)
            sealed = [AssignmentSet.FromString(e.value) for e in new.entries("node.").values()]
            held.epoch = 2
            assert sealed == [held, held]


async def test_a_write_that_comes_during_the_take_over_is_kept_and_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with mirrored(server.url) as old, mirrored(server.url) as new:
            first = await old.put("node.a", AssignmentSet(epoch=1).SerializeToString(), 0)
            late = AssignmentSet(revision=8, epoch=1)
            read = new.reload
            reads = 0

            async def read_too_early() -> None:
                nonlocal reads
                await read()
                reads += 1
                if reads == 1:
                    await old.put("node.a", late.SerializeToString(), first.revision)

            monkeypatch.setattr(new, "reload", read_too_early)
            await seal(new, 2)
            late.epoch = 2
            assert reads == 2
            assert AssignmentSet.FromString(new.entries("node.")["a"].value) == late


async def test_a_set_made_late_by_a_former_leader_counts_like_any_other(tmp_path: Path) -> None:
    """A node without a set has no revision to be sealed: what was made there is not made twice."""
    async with control_plane(tmp_path) as mesh, linked(mesh.nats.url) as link:
        await mesh.agent(Agent("node-a", slots=1))
        second = await mesh.agent(Agent("node-b", slots=0))
        await mesh.create("add", replicas=2)

        async def waits() -> bool:
            return "all 1 slots are taken" in (await mesh.get("add")).status.message

        await eventually(waits)
        late = Assignment()
        late.CopyFrom((await kept(link, "node-a")).assignments[0])
        late.replica_id = "add-0000beef"
        bucket = await streams.assignments_bucket(link.jetstream)
        late_set = AssignmentSet(assignments=[late], revision=1)
        await bucket.update("node.node-b", late_set.SerializeToString(), last=0)
        await mesh.ready("add", 2)
        assert [a.replica_id for a in second.assignments] == ["add-0000beef"]
        assert second.told[-1].epoch == 1


async def test_terms_go_on_from_those_of_autoscalers_that_knew_no_lease(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            bucket = await streams.assignments_bucket(link.jetstream)
            await bucket.put("epoch", b"41")
            directory = tmp_path / "autoscaler"
            async with running_autoscaler(directory, server.url, "127.0.0.1:1") as autoscaler:
                assert await eventually(autoscaler.epoch) == 42
            entry = await bucket.get(LEADER)
            released = Leadership.FromString(entry.value or b"")
            assert (released.holder, released.epoch) == ("", 42)
