"""What a callback says. Pure."""

import hashlib
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from google.protobuf.json_format import MessageToDict

from forebay.v1.task_pb2 import Task
from services.wire.tasks import states

_PORTS = {"http": 80, "https": 443}


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
    url: str
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
        url = urlsplit(task.callback_url)
        port = url.port or _PORTS[url.scheme]
    except (ValueError, KeyError):
        raise UnusableOrderError("its address is not valid") from None
    if url.scheme not in _PORTS or not url.hostname:
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
    host = f"{url.hostname}:{port}"
    data = json.dumps(body).encode()
    return Message(f"msg_{digest[:32]}", task.callback_url, host, task.name, data)
