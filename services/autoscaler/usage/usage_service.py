"""UsageService: thin transport round `listing`. Every autoscaler answers, whoever leads."""

import grpc
import grpc.aio
import nats.errors

from forebay.v1 import usage_pb2, usage_pb2_grpc
from services.autoscaler.usage import listing
from services.autoscaler.usage.store import UsageStore
from services.runtime.clock import Clock
from services.wire.status import StatusError


class UsageService(usage_pb2_grpc.UsageServiceServicer):
    """Says what replicas were held for, and for how long."""

    def __init__(self, store: UsageStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def ListUsage(
        self, request: usage_pb2.ListUsageRequest, context: grpc.aio.ServicerContext
    ) -> usage_pb2.ListUsageResponse:
        """Lists usage by hour, oldest first."""
        try:
            rows, token = await listing.page(self._store, request, self._clock.wall_s())
        except StatusError as error:
            await context.abort(error.code, str(error))
        except (nats.errors.Error, TimeoutError):
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "usage cannot be read: NATS does not answer; try again in a second",
            )
        return usage_pb2.ListUsageResponse(usage=rows, next_page_token=token)
