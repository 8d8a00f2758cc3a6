"""The sweeper on a real nats-server: what each crash leaves behind, and what becomes of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats.js.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from structlog.testing import capture_logs

from forebay.v1.envelope_pb2 import OUTCOME_ABORTED, OUTCOME_INTERNAL
from forebay.v1.task_pb2 import Task, TaskAttempt
from forebay.v1.task_record_pb2 import CallbackEnvelope, DeadTask, TaskEnvelope, TaskProgress
from services.autoscaler.leadership import NotLeadingError
from services.autoscaler.tasks import findings, sweep_record
from services.autoscaler.tasks.sweeper import THOROUGH_S, TaskSweeper
from services.wire.instants import timestamp
from services.wire.tasks import states, streams, subjects
from services.wire.tasks.ledger import TaskLedger, task_name
from tests.support.eventually import eventually
from tests.support.leading import Leading, leading
from tests.support.nats_server import NatsServer


class Swept:
    """A leader with a sweeper that sweeps when it is told to."""

    def __init__(self, parts: Leading) -> None:
        self.parts = parts
        self.link, self.ledger, self.clock = parts.link, parts.ledger, parts.clock
        self.sweeper = TaskSweeper(
            parts.link,
            parts.ledger,
            parts.deployments,
            parts.leadership,
            parts.clock,
            parts.server_clock,
        )

    async def sweep(self, later_s: float = 0.0) -> dict[str, int]:
        """Sweeps, `later_s` seconds later than before; says what was repaired."""
        self.clock.ahead_s += later_s
        await self.sweeper.sweep()
        return dict(self.sweeper.record.last_repairs)

    async def submit(self, task_id: str, ttl_s: float = 3600.0, **fields: object) -> TaskEnvelope:
        """Has a task wait."""
        made = envelope(task_id, ttl_s=ttl_s, **fields)
        await self.ledger.enqueue(made)
        return made

    async def deliver(self, deployment: str = "add") -> str:
        """Has a task be delivered, as to a replica that then dies; where it would be settled."""
        consumer = streams.consumer(deployment, Task.PRIORITY_NORMAL)
        pull = await self.link.jetstream.pull_subscribe_bind(consumer, streams.TASKS)
        [message] = await pull.fetch(1, timeout=30)
        await pull.unsubscribe()
        return str(message.reply)

    async def count(self, stream: str) -> int:
        """Messages in a stream."""
        return int((await self.link.jetstream.stream_info(stream)).state.messages)

    async def ended(self, task_id: str, deployment: str = "add") -> Task:
        """A task that must have ended."""
        task = await self.ledger.ended(deployment, task_id)
        assert task is not None, f"{task_id} has not ended"
        return task


def envelope(
    task_id: str, deployment: str = "add", ttl_s: float = 3600.0, **fields: object
) -> TaskEnvelope:
    task = Task(name=task_name(deployment, task_id), priority=Task.PRIORITY_NORMAL, **fields)
    task.result_ttl.FromSeconds(3600)
    task.expire_time.CopyFrom(timestamp(time.time() + ttl_s))
    return TaskEnvelope(task_id=task_id, deployment=deployment, task=task, body=b"body")


def end(waited: TaskEnvelope, state: Task.State, error: str = "") -> Task:
    task = Task()
    task.CopyFrom(waited.task)
    task.state, task.error = state, error
    task.outcome = states.OUTCOMES.get(state, OUTCOME_INTERNAL)
    task.end_time.CopyFrom(timestamp(time.time()))
    return task


@asynccontextmanager
async def _swept(url: str) -> AsyncIterator[Swept]:
    async with leading(url) as parts:
        await parts.declare("add")
        yield Swept(parts)


@pytest.fixture
async def swept(tmp_path: Path) -> AsyncIterator[Swept]:
    with NatsServer(tmp_path / "nats") as server:
        async with _swept(server.url) as made:
            yield made


async def test_a_queue_in_order_is_left_as_it_is(swept: Swept) -> None:
    await swept.submit("t1")
    await swept.submit("t2")
    await swept.deliver()
    assert await swept.sweep() == {}
    assert await swept.sweep(THOROUGH_S) == {}
    assert await swept.count(streams.TASKS) == 2
    assert await swept.count(streams.ENDED) == 0


async def test_tasks_whose_time_is_over_expire_whether_they_wait_or_run(swept: Swept) -> None:
    for number in range(300):
        await swept.submit(f"t{number}", ttl_s=30)
    await swept.submit("later", ttl_s=90)
    await swept.deliver()
    assert await swept.sweep(40) == {"expired": 300}
    assert await swept.count(streams.TASKS) == 1
    for task_id in ("t0", "t299"):
        task = await swept.ended(task_id)
        assert task.state == Task.STATE_EXPIRED
        assert "ttl" in task.error
    assert await swept.ledger.ended("add", "later") is None
    assert await swept.sweep() == {}


async def test_an_expired_task_keeps_its_attempts_and_has_its_callback_ordered(
    swept: Swept,
) -> None:
    await swept.submit("t1", ttl_s=1, callback_url="https://example.com/done", labels={"a": "b"})
    progress = TaskProgress(attempts=[TaskAttempt(replica_id="r1", error="no")], failed_count=1)
    await swept.ledger.keep_progress("add", "t1", progress)
    with capture_logs() as logs:
        assert await swept.sweep(2) == {"expired": 1}
    [line] = [line for line in logs if line["event"] == "tasks.repaired"]
    assert line["reason"] == "not ended within its ttl", "what a model says is not for logs"
    task = await swept.ended("t1")
    assert (task.attempt_count, task.attempts[0].error) == (1, "no")
    assert task.labels["a"] == "b"
    assert await swept.count(streams.PROGRESS) == 0
    [order] = await swept.ledger.reader.read(streams.CALLBACKS, subjects.CALLBACKS)
    assert CallbackEnvelope.FromString(order.data).task.state == Task.STATE_EXPIRED


async def test_a_task_that_ended_just_in_time_stays_as_it_ended(swept: Swept) -> None:
    waited = await swept.submit("t1", ttl_s=1)
    await swept.ledger.finish(end(waited, Task.STATE_SUCCEEDED))
    swept.clock.ahead_s = 2
    await swept.sweep()
    assert (await swept.ended("t1")).state == Task.STATE_SUCCEEDED
    assert await swept.count(streams.TASKS) == 0


async def test_a_task_that_had_ended_leaves_the_queue_and_its_callback_is_ordered(
    swept: Swept,
) -> None:
    waited = await swept.submit("t1", batch="b")
    task = end(waited, Task.STATE_CANCELLED)
    await swept.ledger.finish(task)
    # Died before the order, as a process that writes the end alone.
    task.callback_url = "https://example.com/done"
    await swept.submit("t2", batch="b")
    await swept.link.jetstream.purge_stream(streams.ENDED)
    task.result_ttl.FromSeconds(100)
    await swept.ledger.publisher.publish(
        subjects.ended("add", "t1", "b"), task.SerializeToString(), ttl_s=100
    )
    assert await swept.sweep() == {}, "who ended it may still take it out"
    assert await swept.sweep(findings.SETTLED_AFTER_S) == {"ended": 1}
    assert await swept.count(streams.TASKS) == 1
    assert await swept.count(streams.CALLBACKS) == 1


@pytest.mark.parametrize("told", [True, False], ids=["advisory", "floor"])
async def test_a_task_that_used_up_its_deliveries_fails_with_a_dead_letter(
    swept: Swept, told: bool
) -> None:
    js = swept.link.jetstream
    config = ConsumerConfig(
        durable_name="add_2",
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=0.1,
        max_deliver=1,
        filter_subject=subjects.lane("add", 2),
    )
    await streams.ensure(js)
    await js.add_consumer(streams.TASKS, config)
    swept.ledger._consumers.add(("add", 2))
    await swept.submit("t1")
    await swept.submit("t2")
    await swept.deliver()

    async def is_told() -> bool:
        return await swept.count(streams.ADVISORIES) == 1

    await eventually(is_told)
    if not told:
        await js.purge_stream(streams.ADVISORIES)
        assert await swept.sweep() == {}, "it is looked at twice"
    assert await swept.sweep(THOROUGH_S) == {"undeliverable": 1}
    task = await swept.ended("t1")
    assert task.state == Task.STATE_FAILED
    assert task.outcome == OUTCOME_ABORTED
    assert "delivered" in task.error
    dead = await swept.ledger.dead("add", "t1")
    assert dead is not None
    assert dead.envelope.body == b"body"
    assert await swept.count(streams.TASKS) == 1
    assert await swept.sweep(findings.SETTLED_AFTER_S + THOROUGH_S) == {}


async def test_a_task_that_a_new_consumer_will_deliver_is_not_given_up(swept: Swept) -> None:
    js = swept.link.jetstream
    await swept.submit("t1")
    advisory = {"stream": streams.TASKS, "consumer": "add_2", "stream_seq": 1, "deliveries": 100}
    await js.publish(
        f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{streams.TASKS}.add_2",
        json.dumps(advisory).encode(),
    )
    await js.delete_consumer(streams.TASKS, "add_2")
    await streams.ensure_consumer(js, "add", Task.PRIORITY_NORMAL)
    assert await swept.sweep() == {}
    assert await swept.sweep(THOROUGH_S) == {}
    assert await swept.deliver()


async def test_a_dead_letter_without_an_end_ends_its_task(swept: Swept) -> None:
    waited = await swept.submit("t1")
    failed = end(waited, Task.STATE_FAILED, "it cannot be done")
    await swept.ledger.bury(DeadTask(task=failed, envelope=waited))
    assert await swept.sweep() == {}, "who buried it may still end it"
    assert await swept.sweep(findings.SETTLED_AFTER_S) == {"buried": 1, "ended": 1}
    assert (await swept.ended("t1")).error == "it cannot be done"
    assert await swept.count(streams.TASKS) == 0
    assert await swept.sweep() == {}


async def test_a_dead_letter_whose_end_was_forgotten_in_order_is_left_alone(swept: Swept) -> None:
    waited = await swept.submit("t1")
    failed = end(waited, Task.STATE_FAILED, "it cannot be done")
    await swept.ledger.bury(DeadTask(task=failed, envelope=waited))
    await swept.link.jetstream.purge_stream(streams.TASKS)
    assert await swept.sweep(3700) == {}
    assert await swept.ledger.ended("add", "t1") is None


async def test_tasks_of_a_deleted_deployment_fail_and_its_consumers_go(swept: Swept) -> None:
    await swept.parts.declare("sub")
    await swept.ledger.enqueue(envelope("t1", "sub"))
    await swept.submit("t2")
    assert await swept.sweep() == {}
    await swept.parts.deployments.delete("spec.sub")
    assert await swept.sweep() == {}, "it may have been created a moment ago"
    assert await swept.sweep(findings.GONE_AFTER_S) == {"orphaned": 1, "consumer_removed": 1}
    task = await swept.ended("t1", "sub")
    assert (task.state, task.error) == (Task.STATE_FAILED, "the deployment was deleted")
    dead = await swept.ledger.dead("sub", "t1")
    assert dead is not None, "it can be retried when the deployment is there again"
    assert dead.envelope.body == envelope("t1", "sub").body
    with pytest.raises(nats.js.errors.NotFoundError):
        await swept.link.jetstream.consumer_info(streams.TASKS, "sub_2")
    assert await swept.count(streams.TASKS) == 1


async def test_tasks_without_a_consumer_get_one_and_can_be_fetched(swept: Swept) -> None:
    await swept.submit("t1")
    await swept.link.jetstream.delete_consumer(streams.TASKS, "add_2")
    assert await swept.sweep() == {"consumer_made": 1}
    assert await swept.deliver()
    assert await swept.sweep() == {}


async def test_what_is_known_of_attempts_is_forgotten_with_its_task(swept: Swept) -> None:
    await swept.submit("t1")
    await swept.ledger.keep_progress("add", "t1", TaskProgress(failed_count=1))
    await swept.ledger.keep_progress("add", "t2", TaskProgress(failed_count=1))
    assert await swept.sweep() == {"progress_forgotten": 1}
    assert (await swept.ledger.progress("add", "t1")).failed_count == 1
    assert (await swept.ledger.progress("add", "t2")).failed_count == 0


async def test_a_message_that_is_no_task_stops_nothing(swept: Swept) -> None:
    await swept.submit("t1", ttl_s=1)
    for subject, body in (
        ("forebay.task.add.2.t2.-.soon", b""),
        (subjects.task("add", 2, "t3", "", 1), b"\xff\xff"),
    ):
        await swept.ledger.publisher.publish(subject, body)
    with capture_logs() as logs:
        assert await swept.sweep(2) == {"expired": 2}
    assert [line["count"] for line in logs if line["event"] == "tasks.unreadable"] == [1]
    assert (await swept.ended("t3")).state == Task.STATE_EXPIRED


async def test_what_sweeps_have_repaired_outlives_the_leader(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with _swept(server.url) as first:
            await first.submit("t1", ttl_s=1)
            assert await first.sweep(2) == {"expired": 1}
        async with leading(server.url) as parts:
            second = Swept(parts)
            await second.submit("t2", ttl_s=1)
            assert await second.sweep(2) == {"expired": 1}
            kept = await sweep_record.load(parts.link.jetstream)
            assert kept.repairs == {"expired": 2}
            assert kept.waiting_count == 1


async def test_only_the_leader_sweeps_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with AsyncExitStack() as first:
            leader = await first.enter_async_context(leading(server.url))
            await leader.declare("add")
            async with leading(server.url, must_lead=False) as parts:
                standby = Swept(parts)
                with pytest.raises(NotLeadingError):
                    await standby.sweep()
                await standby.submit("t1", ttl_s=-1)
                sweeping = asyncio.ensure_future(standby.sweeper.run())
                try:
                    await first.aclose()
                    await eventually(lambda: _has_ended(parts.ledger), timeout_s=60)
                finally:
                    sweeping.cancel()
                    await asyncio.wait([sweeping])


async def _has_ended(ledger: TaskLedger) -> bool:
    return await ledger.ended("add", "t1") is not None
