"""Crashes, failovers and a full queue while schedules fire: each slot once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.autoscaler.schedules import firing
from services.autoscaler.schedules.submitter import Submitter
from services.wire.stored_publisher import StreamFullError
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.schedule_station import (
    TENANT,
    Station,
    WallClock,
    actions,
    end,
    station,
)

# 2026-03-02 00:00:00 UTC.
MIDNIGHT_S = 1_772_409_600.0


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


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


async def knows_the_model(made: Station) -> None:
    """Waits until it has read what was declared before it."""
    await eventually(lambda: made.deployments.get("spec.model") is not None)


@pytest.mark.parametrize("dies", [DiesBefore, DiesAfter])
@pytest.mark.parametrize("later_s", [1, 30, 500])
async def test_a_crash_between_any_two_writes_fires_the_slot_once(
    nats: NatsServer, dies: type[Submitter], later_s: float
) -> None:
    clock = WallClock(MIDNIGHT_S)
    await crashed(nats, dies, clock)
    async with station(nats.url, clock) as second:
        await knows_the_model(second)
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
        await knows_the_model(second)
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
        await knows_the_model(second)
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
        await knows_the_model(second)
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
        await knows_the_model(second)
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
