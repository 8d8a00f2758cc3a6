"""Keeps what a replica's container writes in the replica's own `triton.log`.

How far it has come is kept beside it, by the engine's clock, so that an agent that adopts the
container goes on from there.
"""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import structlog
from google.protobuf.json_format import ParseError
from google.protobuf.timestamp_pb2 import Timestamp

from services.node_agent.containers.launcher_link import LauncherLink
from services.node_agent.runtime import RuntimeAwayError, StartRefusedError
from services.runtime.process import write_atomically

log = structlog.get_logger()

LOG = "triton.log"
POSITION = "triton.log.position"
MAX_LOG_BYTES = 8 * 1024 * 1024
RETRY_S = 1.0


async def follow(link: LauncherLink, replica_id: str, container_id: str, directory: Path) -> None:
    """Writes a container's log down until it has exited.

    A launcher that is away is asked again.
    """
    after_time = await asyncio.to_thread(_position, directory, container_id)
    while True:
        try:
            async with aclosing(link.follow_log(replica_id, after_time)) as responses:
                async for response in responses:
                    after_time = response.written_time
                    await asyncio.to_thread(
                        _keep, directory, container_id, response.text, after_time
                    )
        except RuntimeAwayError:
            await asyncio.sleep(RETRY_S)
        except (StartRefusedError, OSError) as error:
            log.warning("replica.log_lost", replica=replica_id, reason=str(error))
            return
        else:
            return


def _keep(directory: Path, container_id: str, text: str, written_time: Timestamp) -> None:
    path = directory / LOG
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    with path.open("a") as file:
        file.write(text if text.endswith("\n") else f"{text}\n")
    position = {"container_id": container_id, "written_time": written_time.ToJsonString()}
    write_atomically(directory / POSITION, json.dumps(position))


def _position(directory: Path, container_id: str) -> Timestamp | None:
    """Until when a container's log has been written down; None if nothing has been."""
    found = Timestamp()
    try:
        position = json.loads((directory / POSITION).read_text())
        if position["container_id"] != container_id:
            return None
        found.FromJsonString(position["written_time"])
    except (OSError, ValueError, KeyError, TypeError, ParseError):
        return None
    return found
