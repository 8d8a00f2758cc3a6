"""Reads replicas' logs from the agents that hold them, over NATS."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import nats.errors
from google.protobuf.message import DecodeError

from forebay.v1.node_pb2 import ReadReplicaLogRequest, ReadReplicaLogResponse
from services.wire import subjects
from services.wire.nats_link import NatsLink

FOLLOW_INTERVAL_S = 0.5
ANSWER_TIMEOUT_S = 2.0
MAX_READERS = 100
"""Logs read at the same time. Following one costs two NATS requests a second."""


class ReplicaLogError(Exception):
    """A log that cannot be read.

    Attributes:
        code: the status that says so.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ReplicaLogs:
    """Reads logs, a bounded number at a time."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._readers = 0

    async def read(
        self, node: str, request: ReadReplicaLogRequest
    ) -> AsyncIterator[ReadReplicaLogResponse]:
        """The parts of a replica's log: what is asked of the past, then what is written.

        Raises:
            ReplicaLogError: if the agent does not answer or has no such log.
        """
        if self._readers >= MAX_READERS:
            raise ReplicaLogError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_READERS} logs are being read already"
            )
        self._readers += 1
        try:
            part = await self._ask(node, request, offset_bytes=-1)
            yield part
            while request.follow:
                if not part.text:
                    await asyncio.sleep(FOLLOW_INTERVAL_S)
                part = await self._ask(node, request, offset_bytes=part.next_offset_bytes)
                if part.text:
                    yield part
        finally:
            self._readers -= 1

    async def _ask(
        self, node: str, request: ReadReplicaLogRequest, offset_bytes: int
    ) -> ReadReplicaLogResponse:
        question = ReadReplicaLogRequest(
            replica_id=request.replica_id,
            tail_lines=request.tail_lines or 100,
            offset_bytes=offset_bytes,
        )
        try:
            answer = await self._link.client.request(
                subjects.replica_log(node), question.SerializeToString(), timeout=ANSWER_TIMEOUT_S
            )
            part: ReadReplicaLogResponse = ReadReplicaLogResponse.FromString(answer.data)
        except (nats.errors.Error, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise ReplicaLogError(
                grpc.StatusCode.UNAVAILABLE,
                f"the agent of node {node} does not answer ({reason}): is it running?",
            ) from error
        except DecodeError as error:
            raise ReplicaLogError(
                grpc.StatusCode.INTERNAL, f"the agent of node {node} answered with garbage"
            ) from error
        if part.error:
            raise ReplicaLogError(grpc.StatusCode.NOT_FOUND, part.error)
        return part
