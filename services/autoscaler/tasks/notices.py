"""Reads what says by itself that something may be wrong with a task: advisories, dead letters."""

import json

import nats.js.errors
from nats.js import JetStreamContext

from services.autoscaler.tasks import findings
from services.autoscaler.tasks.repairs import Repairs
from services.wire.server_clock import ServerClock
from services.wire.stream_reader import StreamReader
from services.wire.tasks import streams, subjects

READ_COUNT = 100


async def read_advisories(
    js: JetStreamContext,
    reader: StreamReader,
    repairs: Repairs,
    after_sequence: int,
) -> int:
    """Looks at what the server has said of tasks.

    Args:
        js: tells of consumers.
        reader: of streams.
        repairs: carries out what is to be done.
        after_sequence: how far advisories were read before.

    Returns:
        How far they are read now; no further than the first that could not be dealt with.

    Raises:
        nats.errors.Error: if NATS cannot be reached.
    """
    while True:
        found = await reader.read(streams.ADVISORIES, ">", after_sequence + 1, READ_COUNT)
        for message in found:
            said = _fields(message.data)
            # Of a task that a replica gave up, the dead letter tells, which is written before.
            if "MAX_DELIVERIES" in message.subject:
                await _undelivered(js, reader, repairs, said, message.stored_s)
            if repairs.failures:
                return after_sequence
            after_sequence = message.sequence
        if not found:
            return after_sequence


async def read_dead(
    reader: StreamReader, repairs: Repairs, clock: ServerClock, after_sequence: int
) -> int:
    """Looks at each dead letter once, when whoever wrote it should have ended its task.

    Args:
        reader: of streams.
        repairs: carries out what is to be done.
        clock: tells how old a dead letter is.
        after_sequence: how far dead letters were read before.

    Returns:
        How far they are read now.

    Raises:
        nats.errors.Error: if NATS cannot be reached.
        services.wire.stored_publisher.NotStoredError: if an end cannot be written.
    """
    while True:
        found = await reader.read(streams.DEAD, subjects.dead(), after_sequence + 1, READ_COUNT)
        for message in found:
            if clock.now_s() - message.stored_s < findings.SETTLED_AFTER_S:
                return after_sequence
            deployment, task_id = message.subject.split(".")[-2:]
            await repairs.end_buried(deployment, task_id)
            after_sequence = message.sequence
        if not found:
            return after_sequence


async def _undelivered(
    js: JetStreamContext,
    reader: StreamReader,
    repairs: Repairs,
    said: dict[str, object],
    said_s: float,
) -> None:
    sequence, consumer = said.get("stream_seq"), str(said.get("consumer"))
    if not isinstance(sequence, int):
        return
    try:
        info = await js.consumer_info(streams.TASKS, consumer)
    except nats.js.errors.NotFoundError:
        return
    if info.created is not None and info.created.timestamp() > said_s:
        # One that was made anew delivers from the beginning.
        return
    found = await reader.read(streams.TASKS, ">", sequence, 1)
    # Otherwise it has left the queue since.
    if found and found[0].sequence == sequence:
        await repairs.end_undelivered(found[0], consumer)


def _fields(data: bytes) -> dict[str, object]:
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
