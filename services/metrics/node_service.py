"""NodeService: the agents' sessions, and what people ask about nodes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import structlog

from forebay.v1 import node_pb2, node_pb2_grpc
from services.metrics.nodes import TooManyNodesError
from services.metrics.replica_logs import ReplicaLogError, ReplicaLogs
from services.metrics.report_check import Refusal, ReportError
from services.metrics.snapshots import Mesh
from services.runtime.clock import Clock
from services.wire import names, pages

log = structlog.get_logger()

MAX_TAIL_LINES = 10_000

ACKNOWLEDGE_INTERVAL_S = 5.0
"""A message to an agent costs as much as one from it, and agents wait for none."""

_Ending = tuple[grpc.StatusCode, str]


class _Session:
    """One agent's stream; ended from outside by resolving `ended`."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.ended: asyncio.Future[_Ending] = asyncio.get_running_loop().create_future()

    def end(self, code: grpc.StatusCode, sentence: str) -> None:
        if not self.ended.done():
            self.ended.set_result((code, sentence))


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """What the nodes have and what they are doing."""

    def __init__(
        self, mesh: Mesh, logs: ReplicaLogs, clock: Clock, report_interval_s: float
    ) -> None:
        self._mesh = mesh
        self._logs = logs
        self._clock = clock
        self._report_interval_s = report_interval_s
        self._sessions: dict[str, _Session] = {}

    def end_sessions(self) -> None:
        """Ends every session, so that the server can stop at once; agents dial again."""
        for session in self._sessions.values():
            session.end(grpc.StatusCode.UNAVAILABLE, "metrics is stopping: dial again")

    async def Report(
        self, _requests: AsyncIterator[node_pb2.ReportRequest], context: grpc.aio.ServicerContext
    ) -> None:
        """Serves an agent's session until it ends or another one takes its place."""
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        if first.WhichOneof("message") != "registration":
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first message of a session must be a registration",
            )
        try:
            node = self._mesh.register(first.registration)
        except ReportError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooManyNodesError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        session = self._open(node, first.registration)
        try:
            ending = await self._serve(session, context)
        finally:
            if self._sessions.get(node) is session:
                del self._sessions[node]
        log.info("node.session_ended", node=node, reason=ending[1] if ending else "left")
        if ending:
            await context.abort(*ending)

    async def GetNode(
        self, request: node_pb2.GetNodeRequest, context: grpc.aio.ServicerContext
    ) -> node_pb2.GetNodeResponse:
        """Returns a node."""
        try:
            node = self._mesh.node(names.node_id(request.name))
        except names.InvalidNameError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"name: {error}")
        if node is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.name}")
        return node_pb2.GetNodeResponse(node=node)

    async def ListNodes(
        self, request: node_pb2.ListNodesRequest, context: grpc.aio.ServicerContext
    ) -> node_pb2.ListNodesResponse:
        """Lists nodes by name."""
        try:
            nodes, token = pages.page(
                self._mesh.list_nodes(), request.page_size, request.page_token
            )
        except pages.PageError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return node_pb2.ListNodesResponse(nodes=nodes, next_page_token=token)

    async def ReadReplicaLog(
        self, request: node_pb2.ReadReplicaLogRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[node_pb2.ReadReplicaLogResponse]:
        """Streams the log of a replica's Triton."""
        if not 0 <= request.tail_lines <= MAX_TAIL_LINES:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"tail_lines = {request.tail_lines}: it must be 0 to {MAX_TAIL_LINES}",
            )
        node = self._mesh.nodes.holder(request.replica_id)
        if node is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no node holds a replica {names.quoted(request.replica_id)}: "
                "`forebay status` lists the replicas there are",
            )
            return
        try:
            async for part in self._logs.read(node, request):
                yield part
        except ReplicaLogError as error:
            await context.abort(error.code, str(error))

    def _open(self, node: str, registration: node_pb2.NodeRegistration) -> _Session:
        session = _Session(node)
        before = self._sessions.get(node)
        if before is not None:
            before.end(
                grpc.StatusCode.ABORTED, f"another session of node {node} has taken its place"
            )
        self._sessions[node] = session
        log.info("node.registered", node=node, agent_version=registration.agent_version)
        return session

    async def _serve(self, session: _Session, context: grpc.aio.ServicerContext) -> _Ending | None:
        """Takes reports until the session ends; None if the agent left."""
        # One task for the whole session: one for each message would cost a third of a report.
        reading = asyncio.create_task(self._read(session.node, context))
        try:
            ended: set[asyncio.Future[Any]] = {reading, session.ended}
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            return session.ended.result() if session.ended.done() else reading.result()
        finally:
            reading.cancel()

    async def _read(self, node: str, context: grpc.aio.ServicerContext) -> _Ending | None:
        answer = node_pb2.ReportResponse()
        answer.report_interval.FromNanoseconds(int(self._report_interval_s * 1e9))
        await context.write(answer)
        answered_s = self._clock.monotonic_s()
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("message") != "report":
                return grpc.StatusCode.INVALID_ARGUMENT, "after the registration come only reports"
            report = message.report
            try:
                self._mesh.report(node, report)
            except ReportError as error:
                if error.reason is Refusal.UNKNOWN_NODE:
                    return grpc.StatusCode.INVALID_ARGUMENT, str(error)
                # The session goes on: the agent lives, and its next report may be in order.
                if self._mesh.refused(node, error):
                    log.warning("report.refused", node=node, reason=error.reason, error=str(error))
                continue
            answer.acknowledged_sequence_number = max(
                answer.acknowledged_sequence_number, report.sequence_number
            )
            now_s = self._clock.monotonic_s()
            if now_s - answered_s >= ACKNOWLEDGE_INTERVAL_S:
                answered_s = now_s
                await context.write(answer)
        return None
