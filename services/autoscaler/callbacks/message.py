"""What a callback says. Pure."""

import hashlib
import json
from dataclasses import dataclass

from google.protobuf.json_format import MessageToDict
from yarl import URL

from forebay.v1.task_pb2 import Task
from services.wire.tasks import states


class UnusableOrderError(ValueError):
    """An order that no call can be made for."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, the same at every attempt.

    Attributes:
        id: its `webhook-id`.
        url: where to.
        host: host and port of that; other than the rest of the address, it may be logged.
        task: name of the task.
        body: JSON.
    """

    id: str
    url: URL
    host: str
    task: str
    body: bytes


def of(task: Task) -> Message:
    """The message about a task.

    Args:
        task: as it ended.

    Raises:
        UnusableOrderError: if its callback's address cannot be called.
    """
    try:
        url = URL(task.callback_url)
        host = f"{url.host or ''}:{url.port}"
    except ValueError:
        raise UnusableOrderError("its address is not valid") from None
    if url.scheme not in {"http", "https"} or not url.host or not url.port:
        raise UnusableOrderError("its address is not valid")
    # A task that is forgotten may be submitted again by the same name, and end again.
    ended_ns = task.end_time.ToNanoseconds()
    digest = hashlib.sha256(f"{task.name} {ended_ns}".encode()).hexdigest()
    told = Task()
    told.CopyFrom(task)
    told.ClearField("result")
    body = {
        "type": f"task.{states.word(task.state)}",
        "timestamp": task.end_time.ToJsonString(),
        "data": MessageToDict(told),
    }
    return Message(f"msg_{digest[:32]}", url, host, task.name, json.dumps(body).encode())
