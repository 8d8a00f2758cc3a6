"""What fires schedules in an autoscaler, on a real nats-server, with a wall clock of the test's."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.js.errors

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.autoscaler.leadership import Leadership
from services.autoscaler.schedules.firing import Firing
from services.autoscaler.schedules.schedules import KEY, Schedules, key_of
from services.autoscaler.schedules.submitter import Submitter
from services.runtime.tasks import run_until
from services.wire import streams
from services.wire.instants import timestamp
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.tasks import states, subjects
from services.wire.tasks import streams as task_streams
from services.wire.tasks.ledger import TaskLedger
from tests.support.eventually import eventually

TENANT = "default"


class WallClock:
    """A wall clock that the test moves; the other clock is real.

    Attributes:
        now_s: seconds since the epoch.
    """

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return self.now_s


class Station:
    """One autoscaler's schedules."""

    def __init__(self, url: str, clock: WallClock, submitter: type[Submitter]) -> None:
        self.link = NatsLink("test-schedules", url)
        self.deployments = KvMirror(self.link, streams.deployments_bucket)
        assignments = KvMirror(self.link, streams.assignments_bucket)
        self.mirror = KvMirror(self.link, streams.schedules_bucket)
        self.ledger = TaskLedger(self.link)
        self.clock = clock
        self.leadership = Leadership(self.link, assignments, clock, "127.0.0.1:1")
        self.submitter = submitter(self.link, self.ledger, self.deployments, clock)
        self.schedules = Schedules(self.mirror, self.submitter, clock)
        self.firing = Firing(self.mirror, self.submitter, self.leadership, clock)
        self.followed = {
            "deployments": self.deployments.run,
            "assignments": assignments.run,
            "mirror": self.mirror.run,
            "leadership": self.leadership.run,
        }

    async def deploy(self, name: str) -> None:
        value = Deployment(name=f"deployments/{name}").SerializeToString()
        try:
            await self.deployments.put(f"spec.{name}", value, 0)
        except nats.js.errors.KeyWrongLastSequenceError:
            return

    async def create(self, name: str, when: str = "* * * * *", **fields: object) -> Schedule:
        fields.setdefault("request", request("model"))
        return await self.schedules.create(TENANT, name, Schedule(when=when, **fields), False)

    def get(self, name: str) -> Schedule:
        return self.schedules.get(TENANT, f"schedules/{name}")

    def kept(self, name: str) -> Schedule:
        entry = self.mirror.get(KEY + key_of(TENANT, name))
        assert entry is not None
        return Schedule.FromString(entry.value)

    async def at(self, now_s: float) -> None:
        """Sets the clock and looks once."""
        self.clock.now_s = now_s
        await self.firing.look()

    async def tasks(self) -> list[TaskEnvelope]:
        """All tasks in the queue."""
        found = await self.ledger.reader.read(task_streams.TASKS, subjects.TASKS, count=1000)
        return [TaskEnvelope.FromString(message.data) for message in found]

    async def leads(self) -> None:
        await eventually(lambda: self.leadership.leading)


def request(deployment: str) -> InferRequest:
    made = InferRequest(model_name=deployment)
    made.inputs.add(name="X", datatype="UINT8", shape=[1])
    made.raw_input_contents.append(b"\x01")
    return made


@asynccontextmanager
async def station(
    url: str, clock: WallClock, submitter: type[Submitter] = Submitter, leads: bool = True
) -> AsyncIterator[Station]:
    """One that is connected, and leads unless another does."""
    made = Station(url, clock, submitter)
    stopping = asyncio.Event()
    works = {name: work() for name, work in made.followed.items()}
    running = asyncio.ensure_future(
        run_until(stopping, link=made.link.run(stopping), **works)  # type: ignore[arg-type]
    )
    try:
        await eventually(lambda: made.link.connected and made.mirror.known)
        if leads:
            await made.leads()
        yield made
    finally:
        stopping.set()
        await running
        await made.leadership.release()
        await made.link.close()


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
