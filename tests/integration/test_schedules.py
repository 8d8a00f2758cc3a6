"""Schedules on a real nats-server: each slot once, whoever crashes, and whatever the clock does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.autoscaler.schedules import firing
from services.autoscaler.schedules.schedules import MAX_SCHEDULES
from services.autoscaler.schedules.submitter import Submitter
from services.wire.status import StatusError
from services.wire.stored_publisher import StreamFullError
from services.wire.tasks import states
from services.wire.tasks.ledger import timestamp
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.schedule_station import TENANT, Station, WallClock, request, station

# 2026-03-02 00:00:00 UTC.
MIDNIGHT_S = 1_772_409_600.0


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def one(nats: NatsServer) -> AsyncIterator[Station]:
    async with station(nats.url, WallClock(MIDNIGHT_S)) as made:
        await made.deploy("model")
        yield made


def actions(schedule: Schedule) -> list[str]:
    return [ScheduleRun.Action.Name(run.action).removeprefix("ACTION_") for run in schedule.runs]


async def end(one: Station, envelope: TaskEnvelope) -> None:
    """What an agent does with a task that succeeds."""
    ended = Task()
    ended.CopyFrom(envelope.task)
    ended.state = states.SUCCEEDED
    ended.end_time.CopyFrom(timestamp(one.clock.wall_s()))
    assert await one.ledger.finish(ended)
    message = await one.ledger.queued(envelope.deployment, envelope.task_id)
    assert message is not None
    await one.ledger.remove_queued(message.sequence)


async def test_fires_each_slot_once_however_often_it_looks(one: Station) -> None:
    await one.create("minutely", overlap_policy=Schedule.OVERLAP_POLICY_ALLOW)
    for second in range(0, 181, 10):
        await one.at(MIDNIGHT_S + second)
        await one.at(MIDNIGHT_S + second)
    tasks = await one.tasks()
    assert len({task.task_id for task in tasks}) == len(tasks) == 3
    shown = one.get("minutely")
    assert [run.slot_time.seconds for run in shown.runs] == [
        MIDNIGHT_S + 180,
        MIDNIGHT_S + 120,
        MIDNIGHT_S + 60,
    ]
    assert [run.task for run in shown.runs] == [task.task.name for task in reversed(tasks)]
    assert shown.next_time.seconds == MIDNIGHT_S + 240
    assert {task.task.tenant for task in tasks} == {TENANT}


async def test_a_clock_that_jumps_back_fires_no_slot_again(one: Station) -> None:
    await one.create("hourly", "0 * * * *", overlap_policy=Schedule.OVERLAP_POLICY_ALLOW)
    await one.at(MIDNIGHT_S + 3601)
    await one.at(MIDNIGHT_S + 10)
    await one.at(MIDNIGHT_S + 3600)
    mask = FieldMask(paths=["paused"])
    for paused in (True, False):
        changed = Schedule(name="schedules/hourly", paused=paused)
        await one.schedules.update(TENANT, changed, mask)
    await one.at(MIDNIGHT_S + 3605)
    assert len(await one.tasks()) == 1
    await one.at(MIDNIGHT_S + 7200)
    assert len(await one.tasks()) == 2


async def test_missed_slots_are_skipped_and_said(one: Station) -> None:
    await one.create("hourly", "0 * * * *")
    await one.at(MIDNIGHT_S + 5.5 * 3600)
    assert not await one.tasks()
    (run,) = one.get("hourly").runs
    assert run.action == ScheduleRun.ACTION_SKIPPED_MISSED
    assert run.message == (
        "nobody fired 5 slots from 2026-03-02 01:00 UTC to 2026-03-02 05:00 UTC within a minute"
    )
    await one.at(MIDNIGHT_S + 6 * 3600)
    assert len(await one.tasks()) == 1


async def test_missed_slots_are_run_once_however_many(one: Station) -> None:
    policy = Schedule.MISSED_POLICY_RUN_ONCE
    await one.create("minutely", missed_policy=policy)
    await one.at(MIDNIGHT_S + 30 * 24 * 3600 + 30)
    assert len(await one.tasks()) == 1
    # The last slot was on time: its task stands for the others.
    assert actions(one.get("minutely")) == ["SUBMITTED", "SKIPPED_MISSED"]
    assert "1000 or more slots" in one.get("minutely").runs[1].message
    await one.create("hourly", "0 * * * *", missed_policy=policy)
    await one.at(one.clock.now_s + 4.2 * 3600)
    (run,) = one.get("hourly").runs
    assert run.action == ScheduleRun.ACTION_SUBMITTED
    assert "nobody fired 4 slots" in run.message


async def test_a_slot_during_an_earlier_task_is_skipped(one: Station) -> None:
    await one.create("minutely")
    await one.at(MIDNIGHT_S + 60)
    await one.at(MIDNIGHT_S + 120)
    (task,) = await one.tasks()
    shown = one.get("minutely")
    assert actions(shown) == ["SKIPPED_OVERLAP", "SUBMITTED"]
    assert task.task.name in shown.runs[0].message
    await end(one, task)
    await one.at(MIDNIGHT_S + 180)
    assert actions(one.get("minutely"))[0] == "SUBMITTED"


async def test_a_slot_replaces_the_earlier_task(one: Station) -> None:
    await one.create("minutely", overlap_policy=Schedule.OVERLAP_POLICY_REPLACE)
    await one.at(MIDNIGHT_S + 60)
    (first,) = await one.tasks()
    await one.at(MIDNIGHT_S + 120)
    (second,) = await one.tasks()
    assert first.task_id != second.task_id
    ended = await one.ledger.ended("model", first.task_id)
    assert ended is not None
    assert ended.state == states.CANCELLED
    assert ended.error == f"replaced by {second.task.name}"


async def test_a_missing_deployment_is_said_and_the_next_slot_goes_on(one: Station) -> None:
    await one.create("minutely")
    await one.deployments.delete("spec.model")
    await one.at(MIDNIGHT_S + 60)
    (run,) = one.get("minutely").runs
    assert run.action == ScheduleRun.ACTION_FAILED
    assert run.message == "there is no deployment model"
    await one.deploy("model")
    await one.at(MIDNIGHT_S + 120)
    assert actions(one.get("minutely")) == ["SUBMITTED", "FAILED"]


async def test_a_paused_schedule_lets_slots_pass_and_runs_by_hand(one: Station) -> None:
    await one.create("minutely", paused=True)
    assert not one.get("minutely").HasField("next_time")
    await one.at(MIDNIGHT_S + 90)
    assert not await one.tasks()
    run = await one.schedules.run(TENANT, "schedules/minutely")
    assert run.action == ScheduleRun.ACTION_SUBMITTED
    assert not run.HasField("slot_time")
    assert [task.task.name for task in await one.tasks()] == [run.task]
    resumed = Schedule(name="schedules/minutely")
    shown = await one.schedules.update(TENANT, resumed, FieldMask(paths=["paused"]))
    assert shown.next_time.seconds == MIDNIGHT_S + 120
    assert not shown.paused
    await one.at(MIDNIGHT_S + 91)
    assert len(await one.tasks()) == 1


async def test_many_runs_by_hand_do_not_bring_a_slot_back(one: Station) -> None:
    await one.create("hourly", "0 * * * *", overlap_policy=Schedule.OVERLAP_POLICY_ALLOW)
    await one.at(MIDNIGHT_S + 3600)
    for _ in range(25):
        await one.schedules.run(TENANT, "schedules/hourly")
    shown = one.get("hourly")
    assert len(shown.runs) == 20
    one.clock.now_s = MIDNIGHT_S + 60
    changed = Schedule(name="schedules/hourly", when="0 */1 * * *")
    shown = await one.schedules.update(TENANT, changed, None)
    assert shown.next_time.seconds == MIDNIGHT_S + 7200


async def test_tenants_do_not_see_each_others_schedules(one: Station) -> None:
    await one.create("nightly", "0 2 * * *")
    assert one.schedules.list_all("other") == []
    with pytest.raises(StatusError) as caught:
        one.schedules.get("other", "schedules/nightly")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    await one.schedules.create("other", "nightly", one.get("nightly"), False)
    await one.at(MIDNIGHT_S + 2 * 3600)
    tasks = await one.tasks()
    assert sorted(task.task.tenant for task in tasks) == ["default", "other"]


async def test_an_etag_outlives_a_slot_and_not_a_change(one: Station) -> None:
    made = await one.create("minutely")
    await one.at(MIDNIGHT_S + 60)
    assert one.get("minutely").etag == made.etag
    one.clock.now_s += 1
    changed = Schedule(name="schedules/minutely", when="*/2 * * * *", etag=made.etag)
    await one.schedules.update(TENANT, changed, None)
    with pytest.raises(StatusError) as caught:
        await one.schedules.delete(TENANT, "schedules/minutely", made.etag)
    assert caught.value.code is grpc.StatusCode.ABORTED
    await one.schedules.delete(TENANT, "schedules/minutely", one.get("minutely").etag)
    assert one.schedules.list_all(TENANT) == []


async def test_a_schedule_for_an_unknown_deployment_is_refused(one: Station) -> None:
    with pytest.raises(StatusError) as caught:
        await one.create("nightly", request=request("typo"))
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "deploy it first" in str(caught.value)
    assert MAX_SCHEDULES == 1000


async def test_the_deployment_is_woken_and_its_replicas_are_told(one: Station) -> None:
    told: list[str] = []

    async def note(message: object) -> None:
        told.append(message.subject)  # type: ignore[attr-defined]

    for subject in ("forebay.wake.model", "forebay.task-waiting.model"):
        await one.link.client.subscribe(subject, cb=note)
    await one.create("minutely")
    await one.at(MIDNIGHT_S + 60)
    await eventually(lambda: sorted(told) == ["forebay.task-waiting.model", "forebay.wake.model"])


class Crash(BaseException):
    """The process is gone at this point."""


class DiesBefore(Submitter):
    """Dies right before the task is stored."""

    async def store(self, envelope: TaskEnvelope) -> None:
        raise Crash


class DiesAfter(Submitter):
    """Dies right after the task is stored, before that is written down."""

    async def store(self, envelope: TaskEnvelope) -> None:
        await super().store(envelope)
        raise Crash


async def crashed(nats: NatsServer, dies: type[Submitter], clock: WallClock) -> None:
    async with station(nats.url, clock, dies) as first:
        await first.deploy("model")
        await first.create("minutely", task=Task(labels={"of": "schedule"}))
        with pytest.raises(Crash):
            await first.at(MIDNIGHT_S + 60)


@pytest.mark.parametrize("dies", [DiesBefore, DiesAfter])
@pytest.mark.parametrize("later_s", [1, 30, 500])
async def test_a_crash_between_any_two_writes_fires_the_slot_once(
    nats: NatsServer, dies: type[Submitter], later_s: float
) -> None:
    clock = WallClock(MIDNIGHT_S)
    await crashed(nats, dies, clock)
    async with station(nats.url, clock) as second:
        assert second.get("minutely").runs == []
        await second.at(MIDNIGHT_S + 60 + later_s)
        await second.at(MIDNIGHT_S + 60 + later_s)
        submitted = [
            run
            for run in second.get("minutely").runs
            if run.action == ScheduleRun.ACTION_SUBMITTED
            and run.slot_time.seconds == MIDNIGHT_S + 60
        ]
        assert len(submitted) == 1
        tasks = await second.tasks()
        assert [task.task.name for task in tasks].count(submitted[0].task) == 1


async def test_a_task_that_ended_before_the_successor_looked_is_not_stored_again(
    nats: NatsServer,
) -> None:
    clock = WallClock(MIDNIGHT_S)
    await crashed(nats, DiesAfter, clock)
    async with station(nats.url, clock) as second:
        (task,) = await second.tasks()
        await end(second, task)
        await second.at(MIDNIGHT_S + 70)
        assert not await second.tasks()
        (run,) = second.get("minutely").runs
        assert (run.action, run.task) == (ScheduleRun.ACTION_SUBMITTED, task.task.name)


async def test_a_task_that_may_have_run_and_be_forgotten_is_not_run_again(
    nats: NatsServer,
) -> None:
    clock = WallClock(MIDNIGHT_S)
    await crashed(nats, DiesAfter, clock)
    async with station(nats.url, clock) as second:
        (task,) = await second.tasks()
        await end(second, task)
        await second.ledger.forget("model", task.task_id)
        await second.at(MIDNIGHT_S + 60 + 25 * 3600)
        run = second.get("minutely").runs[-1]
        assert run.action == ScheduleRun.ACTION_FAILED
        assert "not submitted again" in run.message
        assert task.task_id not in {waiting.task_id for waiting in await second.tasks()}


async def test_two_that_think_they_lead_fire_a_slot_once(nats: NatsServer) -> None:
    clock = WallClock(MIDNIGHT_S)
    async with station(nats.url, clock) as first, station(nats.url, clock, leads=False) as second:
        await first.deploy("model")
        for number in range(10):
            await first.create(f"minutely-{number}")
        await eventually(lambda: len(second.schedules.list_all(TENANT)) == 10)
        await eventually(lambda: second.deployments.get("spec.model") is not None)
        # Frozen in the belief that it leads: neither asks for its lease.
        for each in (first, second):
            each.firing._leadership = Believer()  # type: ignore[assignment]
        clock.now_s = MIDNIGHT_S + 60
        await asyncio.gather(first.firing.look(), second.firing.look())
        tasks = await first.tasks()
        assert len(tasks) == 10
        for _ in range(3):
            await asyncio.gather(first.firing.look(), second.firing.look())
        await eventually(
            lambda: all(
                actions(second.get(f"minutely-{number}")) == ["SUBMITTED"] for number in range(10)
            )
        )
        assert len(await first.tasks()) == 10


class Believer:
    """Takes itself for the leader."""

    leading = True

    def fence(self, epoch: int = 0) -> None:
        """Lets everything pass."""


async def test_a_standby_fires_nothing_and_serves_all(nats: NatsServer) -> None:
    clock = WallClock(MIDNIGHT_S)
    async with station(nats.url, clock) as first, station(nats.url, clock, leads=False) as second:
        await first.deploy("model")
        await eventually(lambda: second.deployments.get("spec.model") is not None)
        await second.create("minutely")
        await second.at(MIDNIGHT_S + 60)
        assert not await second.tasks()
        await eventually(lambda: len(first.schedules.list_all(TENANT)) == 1)
        await first.at(MIDNIGHT_S + 61)
        await eventually(lambda: actions(second.get("minutely")) == ["SUBMITTED"])


class FullQueue(Submitter):
    """Its queue is full for as long as the test says."""

    full = True

    async def store(self, envelope: TaskEnvelope) -> None:
        if type(self).full:
            raise StreamFullError("maximum bytes exceeded")
        await super().store(envelope)


@pytest.mark.parametrize("drains", [True, False])
async def test_a_full_queue_is_tried_again_for_a_minute(nats: NatsServer, drains: bool) -> None:
    FullQueue.full = True
    async with station(nats.url, WallClock(MIDNIGHT_S), FullQueue) as made:
        await made.deploy("model")
        await made.create("hourly", "0 * * * *")
        await made.at(MIDNIGHT_S + 3600)
        await made.at(MIDNIGHT_S + 3630)
        assert made.get("hourly").runs == []
        FullQueue.full = not drains
        await made.at(MIDNIGHT_S + 3600 + firing.RETRY_S)
        (run,) = made.get("hourly").runs
        expected = ScheduleRun.ACTION_SUBMITTED if drains else ScheduleRun.ACTION_FAILED
        assert run.action == expected
        assert len(await made.tasks()) == (1 if drains else 0)


async def test_a_restart_of_nats_server_loses_no_slot(nats: NatsServer) -> None:
    async with station(nats.url, WallClock(MIDNIGHT_S)) as made:
        await made.deploy("model")
        await made.create("minutely", overlap_policy=Schedule.OVERLAP_POLICY_ALLOW)
        await made.at(MIDNIGHT_S + 60)
        await asyncio.to_thread(nats.kill)
        await made.at(MIDNIGHT_S + 120)
        await asyncio.to_thread(nats.start)
        await eventually(lambda: made.link.connected)
        await made.leads()

        async def fired() -> bool:
            await made.firing.look()
            return actions(made.get("minutely")) == ["SUBMITTED", "SUBMITTED"]

        await eventually(fired)
        assert len(await made.tasks()) == 2
