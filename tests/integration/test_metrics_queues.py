"""What metrics says of queues, with a real nats-server and real consumers."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from forebay.v1.metrics_pb2 import DeploymentLoad, GetSnapshotRequest, WatchSnapshotsRequest
from forebay.v1.node_pb2 import NodeRegistration, ReportRequest
from services.metrics import node_service, queues
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from tests.support.control_plane import ControlPlane, control_plane, linked
from tests.support.eventually import eventually

OF_QUEUE = (
    "queued_count",
    "ongoing_count",
    "redelivered_count",
    "arrivals_per_second",
    "oldest_queued_age",
)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


@pytest.fixture
async def link(mesh: ControlPlane) -> AsyncIterator[NatsLink]:
    async with linked(mesh.nats.url) as made:
        yield made


async def load(mesh: ControlPlane, name: str = "add") -> DeploymentLoad:
    found = (await mesh.snapshots.GetSnapshot(GetSnapshotRequest())).snapshot.deployments
    return {load.deployment: load for load in found}[f"deployments/{name}"]


async def known(mesh: ControlPlane, name: str = "add") -> DeploymentLoad:
    async def is_known() -> DeploymentLoad | None:
        found = await load(mesh, name)
        return found if found.HasField("queued_count") else None

    return await eventually(is_known)


async def publish(link: NatsLink, count: int = 1, name: str = "add") -> None:
    for number in range(count):
        await link.jetstream.publish(subjects.request(name), str(number).encode())


async def deliver(link: NatsLink, name: str = "add") -> Msg:
    subscription = await link.jetstream.pull_subscribe_bind(name, stream=streams.REQUESTS)
    (message,) = await subscription.fetch(1, timeout=30)
    await subscription.unsubscribe()
    return message


def counts(seen: DeploymentLoad) -> tuple[int, int, int, int]:
    return seen.queued_count, seen.ongoing_count, seen.redelivered_count, seen.poison_count


async def settles(mesh: ControlPlane, wanted: tuple[int, int, int, int]) -> DeploymentLoad:
    async def so() -> DeploymentLoad:
        seen = await load(mesh)
        assert seen.HasField("queued_count")
        assert counts(seen) == wanted
        return seen

    return await eventually(so)


async def test_an_empty_queue_is_zero_once_its_consumer_is_known(mesh: ControlPlane) -> None:
    await mesh.create("add")
    seen = await known(mesh)
    assert counts(seen) == (0, 0, 0, 0)
    assert not seen.HasField("oldest_queued_age")

    async def young() -> bool:
        return (await load(mesh)).age.ToMilliseconds() < 5000

    await eventually(young)


async def test_a_message_delivered_again_and_again_is_one_redelivered_and_no_arrival(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")
    await known(mesh)
    began_s = time.monotonic()
    await publish(link)
    for _ in range(streams.MAX_DELIVER - 1):
        await (await deliver(link)).nak()
    await deliver(link)

    async def arrivals() -> tuple[float]:
        """Since the queue was known: as many as metrics has counted, or a little less."""
        now_s = time.monotonic()
        seen = await load(mesh)
        assert counts(seen) == (0, 1, 1, 0)
        watched_s = now_s - began_s - seen.age.ToNanoseconds() / 1e9
        assert watched_s > 1.0
        return (seen.arrivals_per_second * watched_s,)

    # One request; five deliveries would make at least three times as many.
    (counted,) = await eventually(arrivals)
    assert counted < 2


async def test_poison_is_counted_apart_and_is_neither_queued_nor_ongoing_nor_redelivered(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")
    await known(mesh)
    await publish(link)
    for _ in range(streams.MAX_DELIVER):
        await (await deliver(link)).nak()
    await publish(link)
    other = await deliver(link)
    assert other.metadata.num_delivered == 1
    await settles(mesh, (0, 1, 1, 1))
    await other.ack()
    seen = await settles(mesh, (0, 0, 0, 1))
    assert seen.HasField("ongoing_count")
    # It is still stored, which is no reason for load.
    info = await link.jetstream.stream_info(streams.REQUESTS)
    assert info.state.messages == 1


async def test_the_oldest_request_that_waits_has_its_age(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")
    await mesh.create("other")
    await known(mesh)
    await publish(link, name="other")
    await publish(link, 2)

    async def older_than_two_seconds() -> bool:
        return (await load(mesh)).oldest_queued_age.ToMilliseconds() > 2000

    await eventually(older_than_two_seconds)
    await (await deliver(link)).ack()
    await (await deliver(link)).ack()

    async def nothing_waits() -> bool:
        seen = await load(mesh)
        assert counts(seen) == (0, 0, 0, 0)
        return not seen.HasField("oldest_queued_age")

    await eventually(nothing_waits)
    published_s = time.monotonic()
    await publish(link)

    async def has_its_own_age() -> bool:
        seen = await load(mesh)
        # That of the one before it would be two seconds more.
        most_s = time.monotonic() - published_s + 1.0
        assert seen.HasField("oldest_queued_age")
        return bool(seen.oldest_queued_age.ToNanoseconds() / 1e9 < most_s)

    await eventually(has_its_own_age)


async def test_without_the_stream_nothing_is_known_of_any_queue(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")
    await known(mesh)
    await link.jetstream.delete_stream(streams.REQUESTS)

    async def unknown() -> bool:
        seen = await load(mesh)
        return not any(seen.HasField(field) for field in OF_QUEUE)

    await eventually(unknown)


async def test_a_restart_of_nats_server_makes_queues_unknown_until_they_are_there_again(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")
    await known(mesh)
    await publish(link, 3)
    await settles(mesh, (3, 0, 0, 0))
    mesh.nats.restart()
    # Requests are in memory: what was queued is gone, and the autoscaler makes the queue anew.
    await settles(mesh, (0, 0, 0, 0))


async def test_a_wake_has_an_idle_queue_asked_for_at_once(
    mesh: ControlPlane, link: NatsLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.create("add")
    await known(mesh)
    # What the stream holds is not asked again, so that only the wake can tell.
    monkeypatch.setattr(queues, "SWEEP_INTERVAL_S", 3600.0)
    await publish(link)
    await link.client.publish(subjects.wake("add"), b"")
    await settles(mesh, (1, 0, 0, 0))


async def test_a_queue_whose_consumer_was_replaced_is_that_of_the_new_one(
    mesh: ControlPlane, link: NatsLink
) -> None:
    await mesh.create("add")
    await known(mesh)
    await publish(link, 2)
    await deliver(link)
    await settles(mesh, (1, 1, 0, 0))
    await link.jetstream.delete_consumer(streams.REQUESTS, "add")
    config = ConsumerConfig(
        durable_name="add", ack_policy="explicit", filter_subject=subjects.request("add")
    )
    await link.jetstream.add_consumer(streams.REQUESTS, config)
    await settles(mesh, (2, 0, 0, 0))


async def test_watches_of_one_interval_share_their_snapshots(mesh: ControlPlane) -> None:
    request = WatchSnapshotsRequest(interval=Duration(nanos=200_000_000))
    calls = [mesh.snapshots.WatchSnapshots(request) for _ in range(3)]
    seen: list[set[int]] = [set() for _ in calls]

    async def next_ns(number: int) -> int:
        return int((await calls[number].read()).snapshot.sample_time.ToNanoseconds())

    # Since all three watch: a watch may begin late.
    began_ns = max([await next_ns(number) for number in range(3)])

    async def watch(number: int) -> None:
        while len(seen[number]) < 10:
            sampled_ns = await next_ns(number)
            if sampled_ns > began_ns:
                seen[number].add(sampled_ns)

    await asyncio.gather(*(watch(number) for number in range(3)))
    assert len(set.intersection(*seen)) >= 6
    for call in calls:
        call.cancel()


async def test_reports_are_acknowledged_now_and_then(
    mesh: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = mesh.nodes.Report()
    registration = NodeRegistration(node="nodes/node-a", instance_id="1")
    await call.write(ReportRequest(registration=registration))
    terms = await call.read()
    assert (terms.report_interval.seconds, terms.acknowledged_sequence_number) == (1, 0)
    request = ReportRequest()
    for number in range(1, 100):
        request.report.sequence_number = number
        await call.write(request)
    monkeypatch.setattr(node_service, "ACKNOWLEDGE_INTERVAL_S", 0.0)
    request.report.sequence_number = 100
    await call.write(request)
    while (answer := await call.read()).acknowledged_sequence_number < 100:
        continue
    assert answer.acknowledged_sequence_number == 100
    call.cancel()
