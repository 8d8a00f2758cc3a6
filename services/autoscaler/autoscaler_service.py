"""AutoscalerService: what each node must run, and why."""

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import nats.errors

from forebay.v1 import autoscaler_pb2, autoscaler_pb2_grpc
from services.autoscaler.assignment_service import AssignmentService
from services.autoscaler.journal import Journal
from services.autoscaler.leadership import Leadership
from services.wire import names
from services.wire.channels import open_channel
from services.wire.kv_mirror import KvMirror
from services.wire.status import StatusError, invalid_argument

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_WATCHES = 100
LEADER_TIMEOUT_S = 2.0


class AutoscalerService(AssignmentService):
    """Assignments, scale decisions and node demand."""

    def __init__(
        self,
        assignments: KvMirror,
        leadership: Leadership,
        journal: Journal,
        node_demand: Callable[[], autoscaler_pb2.NodeDemand],
    ) -> None:
        """Serves what others keep.

        Args:
            assignments: the bucket of assignments.
            leadership: only the leader tells nodes what to run.
            journal: the decisions.
            node_demand: what machines are missing, as last found.
        """
        super().__init__(assignments, leadership)
        self._journal = journal
        self._node_demand = node_demand
        self._following = 0

    async def ListScaleDecisions(
        self,
        request: autoscaler_pb2.ListScaleDecisionsRequest,
        context: grpc.aio.ServicerContext,
    ) -> autoscaler_pb2.ListScaleDecisionsResponse:
        """Lists scale decisions, newest first."""
        try:
            deployment = _deployment(request.parent, "parent")
            size = _page_size(request.page_size)
            decisions, older = await self._journal.page(deployment, _before(request), size)
        except StatusError as error:
            await context.abort(error.code, str(error))
        except (nats.errors.Error, TimeoutError):
            await context.abort(grpc.StatusCode.UNAVAILABLE, _AWAY)
        return autoscaler_pb2.ListScaleDecisionsResponse(
            scale_decisions=decisions, next_page_token=str(older) if older else ""
        )

    async def GetScaleDecision(
        self, request: autoscaler_pb2.GetScaleDecisionRequest, context: grpc.aio.ServicerContext
    ) -> autoscaler_pb2.GetScaleDecisionResponse:
        """Returns a scale decision."""
        try:
            parent, middle, number = request.name.rpartition("/decisions/")
            if not middle or not number.isascii() or not number.isdigit() or len(number) > 18:
                raise invalid_argument(
                    f"name = {names.quoted(request.name)}: it must be "
                    "deployments/{deployment}/decisions/{number}"
                )
            found = await self._journal.get(_deployment(parent, "name"), int(number))
        except StatusError as error:
            await context.abort(error.code, str(error))
        except (nats.errors.Error, TimeoutError):
            await context.abort(grpc.StatusCode.UNAVAILABLE, _AWAY)
        if found is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"there is no {request.name}, or not any more: `forebay decisions` lists those "
                "that are kept",
            )
        return autoscaler_pb2.GetScaleDecisionResponse(scale_decision=found)

    async def WatchScaleDecisions(
        self,
        request: autoscaler_pb2.WatchScaleDecisionsRequest,
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[autoscaler_pb2.WatchScaleDecisionsResponse]:
        """Streams scale decisions as they are made."""
        try:
            deployment = _deployment(request.parent, "parent")
        except StatusError as error:
            await context.abort(error.code, str(error))
        if self._following >= MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_WATCHES} callers are watching decisions already",
            )
        self._following += 1
        try:
            async with self._journal.following(deployment) as decisions:
                # Tells the caller that nothing is missed from now on.
                await context.send_initial_metadata(())
                async for decision in decisions:
                    yield autoscaler_pb2.WatchScaleDecisionsResponse(scale_decision=decision)
        except (nats.errors.Error, TimeoutError):
            await context.abort(grpc.StatusCode.UNAVAILABLE, _AWAY)
        finally:
            self._following -= 1

    async def GetNodeDemand(
        self, request: autoscaler_pb2.GetNodeDemandRequest, context: grpc.aio.ServicerContext
    ) -> autoscaler_pb2.GetNodeDemandResponse:
        """Returns what machines are missing and which could go; the leader is asked for it."""
        if not self._leadership.leading:
            return await self._ask_the_leader(request, context)
        return autoscaler_pb2.GetNodeDemandResponse(node_demand=self._node_demand())

    async def _ask_the_leader(
        self, request: autoscaler_pb2.GetNodeDemandRequest, context: grpc.aio.ServicerContext
    ) -> autoscaler_pb2.GetNodeDemandResponse:
        leader = self._leadership.leader_address
        if not leader or _ASKED in dict(context.invocation_metadata() or ()):
            # Nobody leads for a moment, or who asked believed that this one did.
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._why_not())
        async with open_channel(leader) as channel:
            stub = autoscaler_pb2_grpc.AutoscalerServiceStub(channel)
            try:
                answer: autoscaler_pb2.GetNodeDemandResponse = await stub.GetNodeDemand(
                    request, timeout=LEADER_TIMEOUT_S, metadata=((_ASKED, "1"),)
                )
            except grpc.aio.AioRpcError as error:
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    f"{leader} leads and does not answer ({error.details()}): try again",
                )
        return answer


_ASKED = "forebay-asked-by-standby"
_AWAY = "decisions cannot be read: NATS does not answer; try again in a second"


def _deployment(name: str, field: str) -> str:
    """The id in a resource name; empty for an empty name."""
    if not name:
        return ""
    try:
        return names.deployment_id(name)
    except names.InvalidNameError as error:
        raise invalid_argument(f"{field}: {error}") from error


def _page_size(asked: int) -> int:
    if asked < 0:
        raise invalid_argument(f"page_size = {asked}: it must be 0 or more")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _before(request: autoscaler_pb2.ListScaleDecisionsRequest) -> int | None:
    token = request.page_token
    if not token:
        return None
    if not token.isascii() or not token.isdigit() or len(token) > 18:
        raise invalid_argument(f"page_token = {names.quoted(token)}: it is not of a former page")
    return int(token)
