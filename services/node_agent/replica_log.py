"""Lets people read a replica's log from anywhere: answers ReadReplicaLogRequest over NATS."""

import asyncio
import re
from pathlib import Path

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from forebay.v1.node_pb2 import ReadReplicaLogRequest, ReadReplicaLogResponse
from services.wire import subjects
from services.wire.nats_link import NatsLink

MAX_CHUNK_BYTES = 256 * 1024
DEFAULT_LINES = 100
MAX_LINES = 10_000

_REPLICA_ID = re.compile(r"[a-z0-9-]{1,80}")


class ReplicaLogs:
    """The logs of this node's replicas, also of those that are gone."""

    def __init__(self, link: NatsLink, state_dir: Path, node: str) -> None:
        """Answers once the link is connected."""
        self._link = link
        self._directory = state_dir / "replicas"
        self._node = node
        self._subscribed = False
        link.on_connected(self._on_connected)

    async def _on_connected(self) -> None:
        if not self._subscribed:
            await self._link.client.subscribe(subjects.replica_log(self._node), cb=self._on_request)
            self._subscribed = True

    async def _on_request(self, msg: Msg) -> None:
        try:
            request = ReadReplicaLogRequest.FromString(msg.data)
        except DecodeError:
            response = ReadReplicaLogResponse(error="not a ReadReplicaLogRequest")
        else:
            response = await asyncio.to_thread(self._read, request)
        await msg.respond(response.SerializeToString())

    def _read(self, request: ReadReplicaLogRequest) -> ReadReplicaLogResponse:
        if not _REPLICA_ID.fullmatch(request.replica_id):
            return ReadReplicaLogResponse(error="that is not the id of a replica")
        path = self._directory / request.replica_id / "triton.log"
        if not path.is_file():
            return ReadReplicaLogResponse(
                error=f"{request.replica_id} has no log on {self._node}: its Triton has not started"
            )
        size = path.stat().st_size
        if request.offset_bytes < 0 or request.offset_bytes > size:
            lines = min(request.tail_lines or DEFAULT_LINES, MAX_LINES)
            return ReadReplicaLogResponse(text=read_tail(path, lines), next_offset_bytes=size)
        with path.open("rb") as file:
            file.seek(request.offset_bytes)
            chunk = file.read(MAX_CHUNK_BYTES)
        whole = chunk[: chunk.rfind(b"\n") + 1] or (chunk if len(chunk) == MAX_CHUNK_BYTES else b"")
        return ReadReplicaLogResponse(
            text=whole.decode(errors="replace"),
            next_offset_bytes=request.offset_bytes + len(whole),
        )


def read_tail(path: Path, lines: int) -> str:
    """The last lines of a file, at most 256 KiB of them; empty if there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - MAX_CHUNK_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:]) + "\n"
