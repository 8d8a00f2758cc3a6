"""Metrics with a real nats-server and real sessions of agents."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from forebay.v1.metrics_pb2 import (
    DeploymentLoad,
    GetSnapshotRequest,
    Snapshot,
    WatchSnapshotsRequest,
)
from forebay.v1.node_pb2 import (
    GetNodeRequest,
    Histogram,
    ListNodesRequest,
    Node,
    NodeRegistration,
    NodeReport,
    ReadReplicaLogRequest,
    ReadReplicaLogResponse,
    ReplicaStatus,
    ReportRequest,
)
from services.runtime import ports
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, control_plane, linked, refusal
from tests.support.eventually import eventually


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


@pytest.fixture
async def link(mesh: ControlPlane) -> AsyncIterator[NatsLink]:
    async with linked(mesh.nats.url) as made:
        yield made


class Session:
    """One agent's stream, message by message."""

    def __init__(self, mesh: ControlPlane) -> None:
        self._nodes = mesh.nodes
        self._call = mesh.nodes.Report()
        self._node = ""
        self._sequence = 0

    async def register(self, node: str = "node-a", instance_id: str = "1") -> None:
        self._node = f"nodes/{node}"
        registration = NodeRegistration(node=self._node, instance_id=instance_id)
        await self.send(ReportRequest(registration=registration))
        await self._call.read()

    async def report(self, *replicas: ReplicaStatus, **fields: object) -> None:
        """Reports, and waits until it is taken, which is told by the revision."""
        self._sequence += 1
        await self.say(*replicas, **fields)

        async def taken() -> bool:
            try:
                found = await self._nodes.GetNode(GetNodeRequest(name=self._node))
            except grpc.aio.AioRpcError:
                return False
            return found.node.applied_revision == self._sequence

        await eventually(taken)

    async def say(self, *replicas: ReplicaStatus, **fields: object) -> None:
        """Reports without waiting."""
        report = NodeReport(
            **{
                "sequence_number": self._sequence,
                "applied_revision": self._sequence,
                "slot_count": 2,
                "replicas": replicas,
                **fields,
            }
        )
        await self.send(ReportRequest(report=report))

    async def send(self, message: ReportRequest) -> None:
        await self._call.write(message)

    async def read(self):
        return await self._call.read()

    async def ended(self) -> grpc.StatusCode:
        await eventually(self._call.done)
        return await self._call.code()

    def leave(self) -> None:
        self._call.cancel()


def replica(**fields: object) -> ReplicaStatus:
    defaults = {
        "replica_id": "add-00000001",
        "deployment": "deployments/add",
        "state": ReplicaStatus.STATE_READY,
    }
    return ReplicaStatus(**{**defaults, **fields})


async def snapshot(mesh: ControlPlane) -> Snapshot:
    return (await mesh.snapshots.GetSnapshot(GetSnapshotRequest())).snapshot


async def load(mesh: ControlPlane) -> DeploymentLoad:
    found = (await snapshot(mesh)).deployments
    assert len(found) == 1, found
    return found[0]


async def http(mesh: ControlPlane, request: bytes) -> str:
    host, port = ports.split(mesh.http)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def get(mesh: ControlPlane, path: str) -> str:
    return await http(mesh, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def test_joins_reports_with_the_queue(mesh: ControlPlane, link: NatsLink) -> None:
    await mesh.create("add")
    session = Session(mesh)
    await session.register()
    waits = Histogram(bounds_s=[0.1, 1.0], counts=[0, 0, 0])
    await session.report(replica(queue_wait=waits))
    waits.counts[:] = [10, 0, 0]
    reported = replica(queue_wait=waits, attempt_counts={"ok": 10})
    for number in range(3):
        await link.jetstream.publish(subjects.request("add"), str(number).encode())

    async def joined() -> DeploymentLoad:
        await session.report(reported)
        seen = await load(mesh)
        assert (seen.queued_count, seen.ongoing_count, seen.ready_replica_count) == (3, 0, 1)
        assert seen.HasField("arrivals_per_second")
        assert seen.HasField("redelivered_count")
        assert seen.queue_wait.count == 10
        exposed = await get(mesh, "/metrics")
        assert 'forebay_queued_requests{deployment="add"} 3.0' in exposed
        assert 'forebay_attempts_total{deployment="add",outcome="ok"} 10.0' in exposed
        return seen

    seen = await eventually(joined)
    assert seen.queue_wait.p50.ToMilliseconds() == 50
    assert not seen.HasField("service_time")
    assert seen.age.ToNanoseconds() > 0
    session.leave()


async def test_what_jetstream_does_not_say_is_unset_and_never_zero(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")

    async def known() -> bool:
        return (await load(mesh)).HasField("queued_count")

    await eventually(known)
    await link.jetstream.delete_consumer(streams.REQUESTS, "add")

    async def unknown() -> bool:
        seen = await load(mesh)
        fields = ("queued_count", "ongoing_count", "redelivered_count", "arrivals_per_second")
        if any(seen.HasField(field) for field in fields):
            return False
        # The autoscaler makes the consumer again: then it is known again in both places.
        return "forebay_queued_requests{" not in await get(mesh, "/metrics")

    await eventually(unknown)


async def test_health_follows_the_connection_to_nats(mesh: ControlPlane) -> None:
    assert (await get(mesh, "/healthz")).startswith("HTTP/1.1 200 ")
    mesh.nats.kill()

    async def unhealthy() -> bool:
        answer = await get(mesh, "/healthz")
        assert answer.startswith("HTTP/1.1 503 ")
        assert "not connected to NATS" in answer
        return "forebay_nats_connected 0.0" in await get(mesh, "/metrics")

    await eventually(unhealthy)
    mesh.nats.start()
    await eventually(lambda: _healthy(mesh))


async def _healthy(mesh: ControlPlane) -> bool:
    return (await get(mesh, "/healthz")).startswith("HTTP/1.1 200 ")


async def test_a_second_session_of_a_node_ends_the_first(mesh: ControlPlane) -> None:
    first, second = Session(mesh), Session(mesh)
    await first.register()
    await first.report()
    await second.register(instance_id="2")
    assert await first.ended() == grpc.StatusCode.ABORTED
    await second.report()
    second.leave()


async def test_a_session_begins_with_a_registration(mesh: ControlPlane) -> None:
    session = Session(mesh)

    async def begin() -> None:
        await session.send(ReportRequest(report=NodeReport()))
        await session.read()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await begin()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    session = Session(mesh)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.register(node="a.b")
    assert "registration.node" in caught.value.details()


async def test_a_bad_report_is_refused_and_counted_and_the_session_goes_on(
    mesh: ControlPlane,
) -> None:
    session = Session(mesh)
    await session.register()
    await session.report(replica())
    for _ in range(20):
        await session.say(replica(deployment="deployments/a b"))
        await session.say(replica(ongoing_count=-1), slot_count=7)
    refused = 'forebay_reports_refused_total{reason="negative"} 20.0'

    async def counted() -> bool:
        return refused in await get(mesh, "/metrics")

    await eventually(counted)

    async def kept_there() -> bool:
        # A node may be silent for a moment only: from here on refused reports alone keep it there.
        await session.say(replica(deployment="deployments/a b"))
        (node,) = (await snapshot(mesh)).nodes
        assert (node.state, node.slot_count) == (Node.STATE_ACTIVE, 2)
        return (await load(mesh)).ready_replica_count == 1

    await eventually(kept_there)
    await session.report(replica(), slot_count=3)
    assert (await snapshot(mesh)).nodes[0].slot_count == 3
    session.leave()


async def test_a_node_that_left_is_offline_and_its_replicas_are_not_counted(
    mesh: ControlPlane,
) -> None:
    session = Session(mesh)
    await session.register()

    async def counted() -> bool:
        # Again and again: a node that is silent for longer than the grace period is offline.
        await session.report(replica())
        return (await load(mesh)).ready_replica_count == 1

    await eventually(counted)
    session.leave()

    async def offline() -> bool:
        request = GetNodeRequest(name="nodes/node-a")
        node = (await mesh.nodes.GetNode(request)).node
        return node.state == Node.STATE_OFFLINE

    await eventually(offline)
    assert list((await snapshot(mesh)).deployments) == []


async def test_lists_nodes_in_pages_and_says_which_are_unknown(mesh: ControlPlane) -> None:
    sessions = [Session(mesh) for _ in range(3)]
    for session, node in zip(sessions, ("node-c", "node-a", "node-b"), strict=True):
        await session.register(node)
        await session.report()
    first = await mesh.nodes.ListNodes(ListNodesRequest(page_size=2))
    assert [node.name for node in first.nodes] == ["nodes/node-a", "nodes/node-b"]
    request = ListNodesRequest(page_size=2, page_token=first.next_page_token)
    assert [n.name for n in (await mesh.nodes.ListNodes(request)).nodes] == ["nodes/node-c"]
    code, _ = await refusal(mesh.nodes.GetNode(GetNodeRequest(name="nodes/none")))
    assert code == grpc.StatusCode.NOT_FOUND
    for session in sessions:
        session.leave()


async def test_watches_send_at_once_and_then_every_interval(mesh: ControlPlane) -> None:
    interval = Duration(nanos=100_000_000)
    call = mesh.snapshots.WatchSnapshots(WatchSnapshotsRequest(interval=interval))
    times = [(await call.read()).snapshot.sample_time.ToNanoseconds() for _ in range(13)]
    assert times == sorted(times)
    # The first interval is cut short, so that all watchers' intervals begin together. One that
    # comes late does not put off those after it, and a snapshot may be 0.05 s old.
    assert times[12] - times[1] >= 600_000_000
    call.cancel()
    request = WatchSnapshotsRequest(interval=Duration(nanos=1))
    code, details = await refusal(mesh.snapshots.WatchSnapshots(request).read())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "0.1 s to 60.0 s" in details


async def test_follows_the_log_of_a_replica(mesh: ControlPlane, link: NatsLink) -> None:
    lines = ["one\n", "two\n"]

    async def answer(message) -> None:
        request = ReadReplicaLogRequest.FromString(message.data)
        start = max(0, request.offset_bytes)
        text = "".join(lines)[start:]
        response = ReadReplicaLogResponse(text=text, next_offset_bytes=start + len(text))
        await message.respond(response.SerializeToString())

    await link.client.subscribe(subjects.replica_log("node-a"), cb=answer)
    session = Session(mesh)
    await session.register()
    await session.report(replica())
    request = ReadReplicaLogRequest(replica_id="add-00000001", follow=True)
    call = mesh.nodes.ReadReplicaLog(request)
    assert (await call.read()).text == "one\ntwo\n"
    lines.append("three\n")
    assert (await call.read()).text == "three\n"
    call.cancel()
    request.follow = False
    whole = [part.text async for part in mesh.nodes.ReadReplicaLog(request)]
    assert whole == ["one\ntwo\nthree\n"]
    session.leave()


async def test_says_why_a_log_cannot_be_read(mesh: ControlPlane) -> None:
    async with Agent("node-a").running(mesh.metrics, mesh.autoscaler):
        await mesh.create("add", replicas=1)
        made = await mesh.ready("add", 1)
        assert made.status.ready_replica_count == 1
        # Nodes that are offline are listed, too, with what they last said.
        seen = await snapshot(mesh)
        replica_id = seen.nodes[0].replicas[0].replica_id
        for request, code, complaint in [
            (ReadReplicaLogRequest(replica_id="none"), grpc.StatusCode.NOT_FOUND, "'none'"),
            (
                ReadReplicaLogRequest(replica_id=replica_id),
                grpc.StatusCode.UNAVAILABLE,
                "node-a does not answer",
            ),
            (
                ReadReplicaLogRequest(replica_id=replica_id, tail_lines=-1),
                grpc.StatusCode.INVALID_ARGUMENT,
                "tail_lines = -1",
            ),
        ]:
            got, details = await refusal(mesh.nodes.ReadReplicaLog(request).read())
            assert got == code
            assert complaint in details


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"nonsense\r\n\r\n", "400"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", "400"),
    ],
)
async def test_http_answers_bad_requests(
    mesh: ControlPlane, request_bytes: bytes, status: str
) -> None:
    assert (await http(mesh, request_bytes)).startswith(f"HTTP/1.1 {status} ")
    await _healthy(mesh)
