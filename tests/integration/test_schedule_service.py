"""ScheduleService of real autoscalers: what callers get, the command line, decorators, failover."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tritonclient.grpc import service_pb2

from forebay.schedules import ScheduleError, ScheduleSpec, declare
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.model_pb2_grpc import ModelServiceStub
from forebay.v1.schedule_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    RunScheduleRequest,
    Schedule,
    ScheduleRun,
    UpdateScheduleRequest,
)
from forebay.v1.schedule_pb2_grpc import ScheduleServiceStub
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.autoscaler.schedules.schedules import KEY, key_of
from services.router.main import serve as serve_router
from services.router.settings import RouterSettings
from services.wire import streams
from services.wire.channels import open_channel
from services.wire.nats_link import NatsLink
from services.wire.tasks import streams as task_streams
from tests.support.autoscaler_process import AutoscalerProcess, running_autoscaler
from tests.support.control_plane import ControlPlane, control_plane, linked, refusal
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.schedule_station import request
from tests.support.serving import serving

YEARLY = "0 0 1 1 *"
TAKEN_OVER_S = 40.0


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        await made.create("model")
        async with open_channel(made.autoscaler) as channel:
            await answers(ScheduleServiceStub(channel))
        yield made


async def answers(service: ScheduleServiceStub) -> None:
    """Waits until the autoscaler has read the schedules."""

    async def listed() -> bool:
        try:
            await service.ListSchedules(ListSchedulesRequest())
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(listed, timeout_s=60)


def wanted(**fields: object) -> Schedule:
    return Schedule(**{"when": YEARLY, "request": request("model")} | fields)


async def tasks_of(link: NatsLink) -> list[TaskEnvelope]:
    """All that wait, which is few: one by one."""
    info = await link.jetstream.stream_info(task_streams.TASKS)
    found = []
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await link.jetstream.get_msg(task_streams.TASKS, sequence)
        found.append(TaskEnvelope.FromString(message.data))
    return found


async def test_a_schedule_from_its_creation_to_its_end(mesh: ControlPlane) -> None:
    async with open_channel(mesh.autoscaler) as channel:
        service = ScheduleServiceStub(channel)
        create = CreateScheduleRequest(schedule_id="yearly", schedule=wanted())
        create.validate_only = True
        await service.CreateSchedule(create)
        assert not (await service.ListSchedules(ListSchedulesRequest())).schedules
        create.validate_only = False
        made = (await service.CreateSchedule(create)).schedule
        assert made.next_time.ToDatetime().strftime("%m-%d %H:%M") == "01-01 00:00"
        assert (await refusal(service.CreateSchedule(create)))[0] is (
            grpc.StatusCode.ALREADY_EXISTS
        )
        name = made.name
        run = (await service.RunSchedule(RunScheduleRequest(name=name))).run
        assert run.action == ScheduleRun.ACTION_SUBMITTED
        shown = (await service.GetSchedule(GetScheduleRequest(name=name))).schedule
        assert shown.runs == [run]
        update = UpdateScheduleRequest(
            schedule=Schedule(name=name, paused=True), update_mask=FieldMask(paths=["paused"])
        )
        assert (await service.UpdateSchedule(update)).schedule.paused
        update.schedule.etag = made.etag
        assert (await refusal(service.UpdateSchedule(update)))[0] is grpc.StatusCode.ABORTED
        await service.DeleteSchedule(DeleteScheduleRequest(name=name))
        code, says = await refusal(service.GetSchedule(GetScheduleRequest(name=name)))
        assert (code, says) == (grpc.StatusCode.NOT_FOUND, "there is no schedule yearly")


async def test_what_is_wrong_is_refused_with_the_field(mesh: ControlPlane) -> None:
    async with open_channel(mesh.autoscaler) as channel:
        service = ScheduleServiceStub(channel)
        for fields, says in (
            ({"when": "0 0 30 2 *"}, "when: '0 0 30 2 *' never comes"),
            ({"when": "hourly"}, "when: 'hourly' has 1 field"),
            ({"timezone": "Mars"}, "timezone: time zone 'Mars' is not known"),
            ({"task": Task(max_retries=99)}, "task.max_retries is 99"),
        ):
            create = CreateScheduleRequest(schedule_id="wrong", schedule=wanted(**fields))
            code, told = await refusal(service.CreateSchedule(create))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert says in told


async def test_large_schedules_come_in_several_pages(mesh: ControlPlane) -> None:
    async with open_channel(mesh.autoscaler) as channel:
        service = ScheduleServiceStub(channel)
        large = request("model")
        large.raw_input_contents[0] = bytes(200 * 1024)
        large.inputs[0].shape[0] = 200 * 1024
        for number in range(25):
            create = CreateScheduleRequest(
                schedule_id=f"large-{number:02}", schedule=wanted(request=large)
            )
            await service.CreateSchedule(create)
        names: list[str] = []
        token, pages = "", 0
        while token or not pages:
            page = await service.ListSchedules(
                ListSchedulesRequest(page_size=1000, page_token=token)
            )
            assert page.ByteSize() < 4 << 20
            names += [each.name for each in page.schedules]
            token, pages = page.next_page_token, pages + 1
        assert names == [f"schedules/large-{number:02}" for number in range(25)]
        assert pages > 1


async def test_a_decorator_makes_keeps_renames_and_removes_its_schedule(
    mesh: ControlPlane,
) -> None:
    spec, body = ScheduleSpec(YEARLY, "Europe/Berlin", "run-once", "replace"), request("model")
    async with open_channel(mesh.autoscaler) as channel:
        service = ScheduleServiceStub(channel)

        async def names() -> list[str]:
            page = await service.ListSchedules(ListSchedulesRequest())
            return [each.name for each in page.schedules]

        assert await declare(None, "model", None, channel) == ""
        assert await declare(spec, "model", body, channel) == "created"
        assert await declare(spec, "model", body, channel) == "unchanged"
        pause = Schedule(name="schedules/model", paused=True)
        await service.UpdateSchedule(UpdateScheduleRequest(schedule=pause))
        later = ScheduleSpec("0 1 1 1 *", "Europe/Berlin")
        assert await declare(later, "model", body, channel) == "updated"
        made = (await service.GetSchedule(GetScheduleRequest(name="schedules/model"))).schedule
        assert (made.when, made.paused) == ("0 1 1 1 *", True)
        assert made.missed_policy == Schedule.MISSED_POLICY_SKIP
        await service.CreateSchedule(
            CreateScheduleRequest(schedule_id="by-hand", schedule=wanted())
        )
        renamed = ScheduleSpec(YEARLY, name="other")
        assert await declare(renamed, "model", body, channel) == "created"
        assert await names() == ["schedules/by-hand", "schedules/other"]
        with pytest.raises(ScheduleError, match="give another name"):
            await declare(ScheduleSpec(YEARLY, name="by-hand"), "model", body, channel)
        assert await declare(None, "model", None, channel) == "removed"
        assert await names() == ["schedules/by-hand"]


async def forebay(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "forebay.cli.main",
        "schedules",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line(mesh: ControlPlane, tmp_path: Path) -> None:
    metadata = service_pb2.ModelMetadataResponse(name="model")
    metadata.inputs.add(name="CONTENT", datatype="BYTES", shape=[-1])
    async with linked(mesh.nats.url) as link:
        bucket = await streams.metadata_bucket(link.jetstream)
        await bucket.put("metadata.model", metadata.SerializeToString())
        ready_file = tmp_path / "router.json"
        async with serving(
            serve_router, RouterSettings, ready_file, nats_url=mesh.nats.url, listen="127.0.0.1:0"
        ) as addresses:
            await the_command_line(mesh, addresses["router"], tmp_path, link)


async def the_command_line(mesh: ControlPlane, router: str, tmp_path: Path, link: NatsLink) -> None:
    at = ("--autoscaler", mesh.autoscaler)
    report = tmp_path / "report.txt"
    report.write_text("hello")
    creating = ["create", "nightly", "model", str(report), "--router", router, *at]
    creating += ["--timezone", "Europe/Berlin", "--label", "of=night"]

    async def created() -> str:
        # A router that has just started may not yet have read which deployments there are.
        code, _, err = await forebay(*creating, "--when", "0 2 * * *", "--missed", "run-once")
        assert code == 0, err
        return err

    assert "created nightly; next: " in await eventually(created, timeout_s=60)
    for arguments, says in (
        (["--when", "0 0 30 2 *"], "schedule: when: '0 0 30 2 *' never comes"),
        (["--when", "0 2 * * *", "--overlap", "all"], "legal are skip, allow, replace"),
        (["--when", "0 2 * * *", "--priority", "first"], "legal are high, normal, low"),
    ):
        code, out, err = await forebay(*creating, *arguments)
        assert code == 2
        assert says in err
    code, out, err = await forebay("list", *at)
    assert code == 0
    assert "nightly" in out
    assert "0 2 * * *" in out
    assert "never" in out
    code, out, err = await forebay("run", "nightly", *at)
    assert code == 0
    assert "deployments/model/tasks/" in out
    (task,) = await tasks_of(link)
    assert dict(task.task.labels) == {"of": "night"}
    assert b"hello" in task.body
    code, out, err = await forebay("pause", "nightly", *at)
    assert (code, "nightly is paused" in err) == (0, True)
    code, out, err = await forebay("show", "nightly", *at)
    assert code == 0
    for word in ("paused", "run-once", "by hand", "submitted", "CONTENT"):
        assert word in out
    code, out, err = await forebay("resume", "nightly", "-o", "json", *at)
    resumed = json.loads(out)
    assert resumed["next_time"]
    assert resumed["request"]["inputs"] == ["CONTENT"]
    code, out, err = await forebay("delete", "nightly", *at)
    assert code == 0
    code, out, err = await forebay("show", "nightly", *at)
    assert code == 3
    assert "there is no schedule nightly" in err


@pytest.fixture
async def pair(
    tmp_path: Path,
) -> AsyncIterator[tuple[ControlPlane, AutoscalerProcess, AutoscalerProcess]]:
    async with AsyncExitStack() as stack:
        nats_server = stack.enter_context(NatsServer(tmp_path / "nats"))
        mesh = ControlPlane(nats_server, tmp_path, stack)
        await mesh.start()
        made: list[AutoscalerProcess] = []
        for name in ("first", "second"):
            starting = running_autoscaler(tmp_path / name, nats_server.url, mesh.metrics)
            made.append(await stack.enter_async_context(starting))
            await eventually(made[0].epoch, timeout_s=TAKEN_OVER_S)
        yield mesh, made[0], made[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_slot_due_while_nobody_leads_fires_once(
    pair: tuple[ControlPlane, AutoscalerProcess, AutoscalerProcess], number: signal.Signals
) -> None:
    mesh, first, second = pair
    mesh.deployments = DeploymentServiceStub(second.channel)
    mesh.models = ModelServiceStub(second.channel)
    service = ScheduleServiceStub(second.channel)
    # It has read the schedules, and so is connected.
    await answers(service)
    await mesh.create("model")
    await service.CreateSchedule(CreateScheduleRequest(schedule_id="yearly", schedule=wanted()))
    async with linked(mesh.nats.url) as link:
        first.send(number)
        slot_s = int(time.time())
        bucket = await streams.schedules_bucket(link.jetstream)
        entry = await bucket.get(KEY + key_of("default", "yearly"))
        kept = Schedule.FromString(entry.value)
        kept.next_time.FromSeconds(slot_s)
        await bucket.update(entry.key, kept.SerializeToString(), last=entry.revision)

        async def runs() -> list[ScheduleRun]:
            answer = await service.GetSchedule(GetScheduleRequest(name="schedules/yearly"))
            return list(answer.schedule.runs)

        await eventually(runs, timeout_s=TAKEN_OVER_S)
        if number == signal.SIGSTOP:
            # It wakes up in the belief that it leads.
            first.send(signal.SIGCONT)
            await eventually(lambda: first.logged("leadership.lost"), timeout_s=TAKEN_OVER_S)
        (run,) = await runs()
        assert (run.action, run.slot_time.seconds) == (ScheduleRun.ACTION_SUBMITTED, slot_s)
        (task,) = await tasks_of(link)
        assert task.task.name == run.task
