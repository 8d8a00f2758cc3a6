"""AutoscalerService: tells each node's agent what it must run."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import structlog

from forebay.v1 import autoscaler_pb2, autoscaler_pb2_grpc
from services.autoscaler.leadership import Leadership
from services.wire import names
from services.wire.kv_mirror import KvMirror

log = structlog.get_logger()

MAX_WATCHES = 20_000


class AssignmentService(autoscaler_pb2_grpc.AutoscalerServiceServicer):
    """Streams each node's full set of assignments, at once and on every change.

    Only while this autoscaler leads: one that does not, or ceases to, answers UNAVAILABLE and names
    the leader.
    """

    def __init__(self, assignments: KvMirror, leadership: Leadership) -> None:
        self._assignments = assignments
        self._leadership = leadership
        self._watches: set[asyncio.Event] = set()
        self._stopping = False

    def end_watches(self) -> None:
        """Ends every watch, so that the server can stop at once; agents dial again."""
        self._stopping = True
        for event in self._watches:
            event.set()

    async def WatchAssignments(
        self,
        request: autoscaler_pb2.WatchAssignmentsRequest,
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[autoscaler_pb2.WatchAssignmentsResponse]:
        """Streams the full set of replicas a node must run."""
        try:
            node = names.node_id(request.node)
        except names.InvalidNameError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"node: {error}")
        epoch = self._leadership.epoch
        if not epoch:
            # An empty set would make the agent stop everything it runs.
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._why_not())
        if len(self._watches) >= MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHES} nodes are watching already"
            )
        with self._assignments.changes() as changed, self._leadership.changes(changed):
            self._watches.add(changed)
            try:
                async for response in self._responses(node, epoch, changed):
                    yield response
            finally:
                self._watches.discard(changed)
        await context.abort(grpc.StatusCode.UNAVAILABLE, self._why_not())

    async def _responses(
        self, node: str, epoch: int, changed: asyncio.Event
    ) -> AsyncIterator[autoscaler_pb2.WatchAssignmentsResponse]:
        """What the node must run, until the term is over."""
        read, sent = -1, -1
        while True:
            await changed.wait()
            changed.clear()
            # Asked before each response: one that was decided by a successor must not go out under
            # this term.
            if self._stopping or self._leadership.epoch != epoch:
                return
            entry = self._assignments.get(f"node.{node}")
            revision = entry.revision if entry else 0
            if revision == read:
                # Another node's set has changed, or the lease was renewed.
                continue
            read = revision
            held = autoscaler_pb2.AssignmentSet.FromString(entry.value if entry else b"")
            if held.revision == sent:
                continue
            sent = held.revision
            yield autoscaler_pb2.WatchAssignmentsResponse(
                assignments=held.assignments,
                revision=held.revision,
                # Whoever decided it, this autoscaler stands for it now.
                epoch=epoch,
            )

    def _why_not(self) -> str:
        if self._stopping:
            return "the autoscaler is stopping: dial again"
        if not self._assignments.known:
            return "assignments are not known yet: NATS does not answer"
        if leader := self._leadership.leader_address:
            return f"this autoscaler stands by; {leader} leads"
        return "no autoscaler leads yet: dial again"
