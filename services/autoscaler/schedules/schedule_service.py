"""ScheduleService: thin transport round `Schedules`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import nats.errors

from forebay.v1 import schedule_pb2, schedule_pb2_grpc
from forebay.v1.schedule_pb2 import Schedule
from services.autoscaler.schedules.schedules import Schedules
from services.wire import pages
from services.wire.outcomes import STATUS, OutcomeError
from services.wire.status import StatusError, nats_away
from services.wire.tenants import tenant_of

MAX_PAGE_BYTES = 2 << 20


class ScheduleService(schedule_pb2_grpc.ScheduleServiceServicer):
    """Says what is submitted by the clock."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    async def CreateSchedule(
        self, request: schedule_pb2.CreateScheduleRequest, context: grpc.aio.ServicerContext
    ) -> schedule_pb2.CreateScheduleResponse:
        """Creates a schedule."""
        response = schedule_pb2.CreateScheduleResponse()
        async with _statuses(context) as tenant:
            made = await self._schedules.create(
                tenant, request.schedule_id, request.schedule, request.validate_only
            )
            response.schedule.CopyFrom(made)
        return response

    async def GetSchedule(
        self, request: schedule_pb2.GetScheduleRequest, context: grpc.aio.ServicerContext
    ) -> schedule_pb2.GetScheduleResponse:
        """Returns a schedule."""
        response = schedule_pb2.GetScheduleResponse()
        async with _statuses(context) as tenant:
            response.schedule.CopyFrom(self._schedules.get(tenant, request.name))
        return response

    async def ListSchedules(
        self, request: schedule_pb2.ListSchedulesRequest, context: grpc.aio.ServicerContext
    ) -> schedule_pb2.ListSchedulesResponse:
        """Lists schedules by name."""
        response = schedule_pb2.ListSchedulesResponse()
        async with _statuses(context) as tenant:
            listed, token = _page(
                self._schedules.list_all(tenant), request.page_size, request.page_token
            )
            response.schedules.extend(listed)
            response.next_page_token = token
        return response

    async def UpdateSchedule(
        self, request: schedule_pb2.UpdateScheduleRequest, context: grpc.aio.ServicerContext
    ) -> schedule_pb2.UpdateScheduleResponse:
        """Changes the fields named by the mask."""
        response = schedule_pb2.UpdateScheduleResponse()
        async with _statuses(context) as tenant:
            mask = request.update_mask if request.HasField("update_mask") else None
            changed = await self._schedules.update(tenant, request.schedule, mask)
            response.schedule.CopyFrom(changed)
        return response

    async def DeleteSchedule(
        self, request: schedule_pb2.DeleteScheduleRequest, context: grpc.aio.ServicerContext
    ) -> schedule_pb2.DeleteScheduleResponse:
        """Removes a schedule."""
        async with _statuses(context) as tenant:
            await self._schedules.delete(tenant, request.name, request.etag)
        return schedule_pb2.DeleteScheduleResponse()

    async def RunSchedule(
        self, request: schedule_pb2.RunScheduleRequest, context: grpc.aio.ServicerContext
    ) -> schedule_pb2.RunScheduleResponse:
        """Fires a schedule now."""
        response = schedule_pb2.RunScheduleResponse()
        async with _statuses(context) as tenant:
            response.run.CopyFrom(await self._schedules.run(tenant, request.name))
        return response


def _page(
    schedules: Sequence[Schedule], page_size: int, page_token: str
) -> tuple[Sequence[Schedule], str]:
    """A page that one answer can hold: requests are large."""
    while True:
        listed, token = pages.page(schedules, page_size, page_token)
        if len(listed) <= 1 or sum(each.ByteSize() for each in listed) <= MAX_PAGE_BYTES:
            return listed, token
        page_size = len(listed) // 2


@asynccontextmanager
async def _statuses(context: grpc.aio.ServicerContext) -> AsyncIterator[str]:
    """Tells the tenant of a call, and ends it with the status that an error means."""
    try:
        yield tenant_of(context.invocation_metadata())
    except StatusError as error:
        await context.abort(error.code, str(error))
    except OutcomeError as error:
        await context.abort(STATUS[error.outcome], error.message)
    except pages.PageError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except (nats.errors.Error, TimeoutError) as error:
        await context.abort(*nats_away(error))
