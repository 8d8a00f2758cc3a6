"""What a replica's container writes, followed across restarts of the engine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from forebay.v1.launcher_pb2 import ReplicaContainer
from services.launcher import container_state as states
from services.launcher.engine import Engine
from services.launcher.log_frames import LogFrames
from services.launcher.refusal import Kind, RefusedError
from services.launcher.replicas import Replicas

RETRY_S = 1.0

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LogText:
    """Whole lines of a log.

    Attributes:
        text: the lines.
        written_ns: when the last of them was written, in nanoseconds since the epoch of the
            engine's clock.
    """

    text: str
    written_ns: int


async def follow(
    engine: Engine, replicas: Replicas, replica_id: str, after_ns: int
) -> AsyncGenerator[LogText, None]:
    """What a replica's container writes, until it has ended and all is read.

    A reader who is slow holds up the stream: no more than a read buffer is kept here.

    Args:
        engine: the engine.
        replicas: knows the container.
        replica_id: the replica.
        after_ns: only what was written after that, in nanoseconds since the epoch; 0 for all.

    Raises:
        RefusedError: if there is no such container.
    """
    container_id = await replicas.own_container(replica_id)
    if container_id is None:
        raise RefusedError(
            Kind.NOT_FOUND, f"replica {replica_id} has no container on this node, and so no log"
        )
    while True:
        ended = await _has_ended(replicas, replica_id, container_id)
        try:
            async with aclosing(_lines(engine, container_id, after_ns)) as texts:
                async for text in texts:
                    after_ns = text.written_ns
                    yield text
            if ended or await _has_ended(replicas, replica_id, container_id):
                if ended:
                    return
                # What it wrote last may have come after the stream's end.
                continue
        except RefusedError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.FAILED_PRECONDITION):
                # Removed, or just about to be.
                return
            if error.kind != Kind.UNAVAILABLE:
                raise
        await asyncio.sleep(RETRY_S)


async def _lines(engine: Engine, container_id: str, after_ns: int) -> AsyncGenerator[LogText, None]:
    frames = LogFrames(after_ns)
    since = f"{after_ns // _NS}.{after_ns % _NS:09d}" if after_ns else ""
    async with aclosing(engine.log(container_id, since)) as pieces:
        async for piece in pieces:
            lines = frames.take(piece)
            if lines:
                yield LogText("".join(line.text for line in lines), lines[-1].written_ns)


async def _has_ended(replicas: Replicas, replica_id: str, container_id: str) -> bool:
    try:
        now = await replicas.look(replica_id)
    except RefusedError:
        return False
    return (
        now.state in states.ENDED
        or now.state == ReplicaContainer.STATE_GONE
        or now.container_id != container_id
    )
