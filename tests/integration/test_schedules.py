"""Schedules on a real nats-server: each slot once, whoever crashes, and whatever the clock does."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from services.autoscaler.schedules.schedules import MAX_SCHEDULES
from services.wire.status import StatusError
from services.wire.tasks import states
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.schedule_station import (
    TENANT,
    Station,
    WallClock,
    actions,
    end,
    request,
    station,
)

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


async def test_the_autoscaler_and_the_replicas_are_told(one: Station) -> None:
    told: list[str] = []

    async def note(message: object) -> None:
        told.append(message.subject)  # type: ignore[attr-defined]

    await one.link.client.subscribe("forebay.task-waiting.model", cb=note)
    await one.create("minutely")
    await one.at(MIDNIGHT_S + 60)
    await eventually(lambda: told == ["forebay.task-waiting.model"])
