"""Tasks in the load and in scaling, with a real nats-server, metrics and autoscaler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from nats.aio.msg import Msg

from forebay.v1.autoscaler_pb2 import ListScaleDecisionsRequest
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.metrics_pb2 import DeploymentLoad, GetSnapshotRequest
from forebay.v1.scaling_pb2 import ScalingPolicy
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import DeadTask, TaskEnvelope
from services.wire import streams as request_streams
from services.wire import subjects as request_subjects
from services.wire.nats_link import NatsLink
from services.wire.tasks import streams, subjects
from services.wire.tasks.ledger import TaskLedger, task_name
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, control_plane
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

HIGH, NORMAL = Task.PRIORITY_HIGH, Task.PRIORITY_NORMAL


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


class Submitter:
    """Stores tasks as routers do, and takes them as agents do."""

    def __init__(self, link: NatsLink, ledger: TaskLedger) -> None:
        self.link, self.ledger = link, ledger
        self._next = 0

    async def submit(
        self, count: int = 1, deployment: str = "add", priority: Task.Priority = NORMAL
    ) -> None:
        for _ in range(count):
            self._next += 1
            task_id = f"t{self._next}"
            task = Task(name=task_name(deployment, task_id), priority=priority)
            task.expire_time.GetCurrentTime()
            task.expire_time.seconds += 3600
            envelope = TaskEnvelope(task_id=task_id, deployment=deployment, task=task)
            await self.ledger.enqueue(envelope)
        self.ledger.tell_waiting(deployment, priority)

    async def take(self, priority: Task.Priority = NORMAL) -> Msg:
        name = streams.consumer("add", priority)
        pulled = await self.link.jetstream.pull_subscribe_bind(name, stream=streams.TASKS)
        (message,) = await pulled.fetch(1, timeout=30)
        await pulled.unsubscribe()
        return message


@asynccontextmanager
async def submitting(url: str) -> AsyncIterator[Submitter]:
    link = NatsLink("test-tasks", url)
    ledger = TaskLedger(link)
    stopping = asyncio.Event()
    running = asyncio.ensure_future(link.run(stopping))
    try:
        await eventually(lambda: link.connected)
        yield Submitter(link, ledger)
    finally:
        stopping.set()
        await running
        await link.close()


@pytest.fixture
async def tasks(mesh: ControlPlane) -> AsyncIterator[Submitter]:
    async with submitting(mesh.nats.url) as made:
        yield made


class Alone:
    """Metrics on a nats-server, and nobody who would repair anything."""

    def __init__(self, mesh: ControlPlane, tasks: Submitter) -> None:
        self.mesh, self.tasks = mesh, tasks

    async def declare(self, deployment: str) -> None:
        js = self.tasks.link.jetstream
        bucket = await request_streams.deployments_bucket(js)
        spec = Deployment(name=f"deployments/{deployment}", generation=1)
        await bucket.put(f"spec.{deployment}", spec.SerializeToString())
        await request_streams.ensure_request_consumer(js, deployment)


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Alone]:
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            mesh = ControlPlane(nats, tmp_path, stack)
            await mesh.start()
            yield Alone(mesh, await stack.enter_async_context(submitting(nats.url)))


async def load(mesh: ControlPlane, name: str = "add") -> DeploymentLoad:
    found = (await mesh.snapshots.GetSnapshot(GetSnapshotRequest())).snapshot.deployments
    return {load.deployment: load for load in found}[f"deployments/{name}"]


def counts(seen: DeploymentLoad) -> tuple[int, int, int, int]:
    """Queued and ongoing, all of them and tasks."""
    assert seen.HasField("queued_count")
    return (
        seen.queued_count,
        seen.ongoing_count,
        seen.queued_task_count,
        seen.ongoing_task_count,
    )


async def settles(
    mesh: ControlPlane, wanted: tuple[int, int, int, int], name: str = "add"
) -> DeploymentLoad:
    async def so() -> DeploymentLoad:
        seen = await load(mesh, name)
        assert counts(seen) == wanted
        return seen

    return await eventually(so)


async def unknown(mesh: ControlPlane) -> None:
    async def so() -> bool:
        seen = await load(mesh)
        return not seen.HasField("queued_count") and not seen.HasField("queued_task_count")

    await eventually(so)


async def test_tasks_count_as_queued_then_as_ongoing_until_they_are_settled(
    mesh: ControlPlane, tasks: Submitter
) -> None:
    await mesh.create("add")
    await mesh.create("other")
    await settles(mesh, (0, 0, 0, 0))
    await tasks.submit(2)
    await tasks.submit(1, priority=HIGH)
    await tasks.link.jetstream.publish(request_subjects.request("add"), b"a request")
    await settles(mesh, (4, 0, 3, 0))
    await settles(mesh, (0, 0, 0, 0), "other")
    high = await tasks.take(HIGH)
    await settles(mesh, (3, 1, 2, 1))
    # It waits for its next attempt: that is work to come, and no reason to think ill of it.
    await high.nak(delay=1)
    high = await tasks.take(HIGH)
    assert high.metadata.num_delivered == 2
    normal = await tasks.take()
    seen = await settles(mesh, (2, 2, 1, 2))
    assert seen.redelivered_count == 0
    await high.nak(delay=3600)
    # It is not the next one to be delivered again.
    await normal.in_progress()
    await (await tasks.take()).ack()
    await settles(mesh, (1, 2, 0, 2))
    await tasks.link.jetstream.purge_stream(streams.TASKS)
    await settles(mesh, (1, 0, 0, 0))


async def test_tasks_that_come_and_go_are_arrivals(mesh: ControlPlane, tasks: Submitter) -> None:
    await mesh.create("add")
    await settles(mesh, (0, 0, 0, 0))

    async def arrived() -> bool:
        # A queue of requests that nobody speaks of is asked for seldom.
        await tasks.link.client.publish(request_subjects.wake("add"), b"")
        await tasks.submit()
        await (await tasks.take()).ack()
        return (await load(mesh)).arrivals_per_second > 0

    await eventually(arrived)


async def test_without_the_stream_of_tasks_load_is_unknown_until_it_is_there_again(
    mesh: ControlPlane, tasks: Submitter
) -> None:
    await mesh.create("add")
    await tasks.submit(2)
    await settles(mesh, (2, 0, 2, 0))
    await tasks.link.jetstream.delete_stream(streams.TASKS)
    await unknown(mesh)
    await streams.ensure(tasks.link.jetstream)
    await settles(mesh, (0, 0, 0, 0))


async def test_tasks_without_a_consumer_are_unknown_until_they_have_one_again(
    alone: Alone,
) -> None:
    mesh, tasks, js = alone.mesh, alone.tasks, alone.tasks.link.jetstream
    await tasks.submit(2)
    await js.delete_consumer(streams.TASKS, streams.consumer("add", NORMAL))
    await alone.declare("other")
    await alone.declare("add")
    await settles(mesh, (0, 0, 0, 0), "other")
    await unknown(mesh)
    await streams.ensure_consumer(js, "add", NORMAL)
    await settles(mesh, (2, 0, 2, 0))
    await js.delete_consumer(streams.TASKS, streams.consumer("add", NORMAL))
    await unknown(mesh)
    await js.purge_stream(streams.TASKS)
    await settles(mesh, (0, 0, 0, 0))


async def test_tasks_outlive_a_restart_of_nats_server_and_are_counted_again(
    mesh: ControlPlane, tasks: Submitter
) -> None:
    await mesh.create("add")
    await tasks.submit(3)
    await settles(mesh, (3, 0, 3, 0))
    mesh.nats.restart()
    await unknown(mesh)
    await settles(mesh, (3, 0, 3, 0))


async def test_dead_letters_are_counted_once_however_often_they_are_written(
    mesh: ControlPlane, tasks: Submitter
) -> None:
    await mesh.create("add")
    await settles(mesh, (0, 0, 0, 0))
    for task_id in ("t1", "t2", "t1"):
        await tasks.ledger.bury(DeadTask(envelope=TaskEnvelope(task_id=task_id, deployment="add")))

    async def two() -> bool:
        return (await load(mesh)).dead_task_count == 2

    await eventually(two)


async def test_a_mesh_without_tasks_asks_one_question_for_all_deployments(alone: Alone) -> None:
    for name in ("add", "two", "three"):
        await alone.declare(name)
    asked: list[str] = []

    async def note(message: Msg) -> None:
        asked.append(message.subject.removeprefix("$JS.API."))

    await alone.tasks.link.client.subscribe("$JS.API.>", cb=note)

    async def three_rounds() -> bool:
        if not (await load(alone.mesh, "three")).HasField("queued_task_count"):
            return False
        return sum(api == f"STREAM.INFO.{streams.TASKS}" for api in asked) >= 3

    await eventually(three_rounds)
    about_tasks = {api for api in asked if streams.TASKS in api}
    assert about_tasks == {f"STREAM.INFO.{streams.TASKS}"}


def from_zero() -> ScalingPolicy:
    policy = ScalingPolicy(
        min_replicas=0,
        max_replicas=3,
        downscale_to_zero_delay=Duration(nanos=500_000_000),
        upscale_delay=Duration(),
    )
    policy.policy.queue_depth.max_tasks_per_replica = 10
    return policy


async def targets(mesh: ControlPlane) -> list[int]:
    """Targets that were decided on, oldest first."""
    request = ListScaleDecisionsRequest(parent="deployments/add", page_size=100)
    found = (await mesh.watches.ListScaleDecisions(request)).scale_decisions
    return [decision.target_after for decision in reversed(found) if decision.applied]


async def test_a_waiting_task_brings_the_first_replica_at_once_whatever_metrics_knows(
    tmp_path: Path,
) -> None:
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            mesh = ControlPlane(nats, tmp_path, stack)
            # Nobody listens there.
            await stack.enter_async_context(mesh.autoscaling(metrics="127.0.0.1:1"))
            tasks = await stack.enter_async_context(submitting(nats.url))
            await mesh.create("add", scaling=from_zero())

            async def begins_at_zero() -> bool:
                return await targets(mesh) == [0]

            await eventually(begins_at_zero)
            await tasks.submit(25)

            async def three() -> bool:
                return await targets(mesh) == [0, 3]

            await eventually(three)


async def test_the_last_replica_goes_when_neither_requests_nor_tasks_are_left(
    mesh: ControlPlane, tasks: Submitter
) -> None:
    await mesh.agent(Agent("node-a"))
    await mesh.create("add", scaling=from_zero(), max_ongoing_requests=1)
    await settles(mesh, (0, 0, 0, 0))
    await tasks.link.jetstream.publish(request_subjects.request("add"), b"a request")
    await tasks.submit()
    await mesh.ready("add", 1)
    # The request is answered; the task has failed once and waits.
    requests = await tasks.link.jetstream.pull_subscribe_bind(
        "add", stream=request_streams.REQUESTS
    )
    (request,) = await requests.fetch(1, timeout=30)
    await request.ack()
    await requests.unsubscribe()
    await (await tasks.take()).nak(delay=4)
    await settles(mesh, (0, 1, 0, 1))
    again = await tasks.take()
    assert again.metadata.num_delivered == 2
    assert (await mesh.get("add")).status.target_replica_count == 1
    assert 0 not in (await targets(mesh))[1:]
    await again.ack()

    async def at_zero() -> bool:
        return (await targets(mesh))[-1] == 0

    await eventually(at_zero, timeout_s=60)


@pytest.mark.timeout(240)
async def test_waiting_tasks_of_a_deleted_deployment_end_and_ended_ones_stay(
    mesh: ControlPlane, tasks: Submitter
) -> None:
    await mesh.create("add")
    await mesh.create("other")
    await tasks.submit(2)
    await tasks.submit(1, deployment="other")
    ended = Task(name=task_name("add", "ended"), state=Task.STATE_SUCCEEDED)
    ended.end_time.GetCurrentTime()
    ended.result_ttl.FromSeconds(3600)
    await tasks.ledger.finish(ended)
    await mesh.delete("add")
    js = tasks.link.jetstream

    async def only_the_other_waits() -> bool:
        left = await js.consumers_info(streams.TASKS)
        messages = (await js.stream_info(streams.TASKS)).state.messages
        names = [info.name for info in left]
        return messages == 1 and names == [streams.consumer("other", NORMAL)]

    # A deployment is deleted once it has been missing for half a minute.
    await eventually(only_the_other_waits, timeout_s=180)
    kept = await tasks.ledger.reader.read(streams.ENDED, subjects.ended("add"))
    states = [(t.state, t.error) for t in (Task.FromString(one.data) for one in kept)]
    assert sorted(states) == [
        (Task.STATE_SUCCEEDED, ""),
        *[(Task.STATE_FAILED, "the deployment was deleted")] * 2,
    ]
