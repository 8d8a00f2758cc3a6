"""Whether this machine has a container engine, for replicas in containers. None is needed."""

import http.client
import json
import os
import socket
from typing import Any

DEFAULT_SOCKET = "/var/run/docker.sock"
TIMEOUT_S = 5.0


class NoEngineError(Exception):
    """There is none, or it cannot be used; the text says which.

    Attributes:
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(what)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def socket_path() -> str:
    """Where the engine's socket should be: DOCKER_HOST, else Docker's default."""
    return os.environ.get("DOCKER_HOST", f"unix://{DEFAULT_SOCKET}").removeprefix("unix://")


def version(path: str) -> str:
    """What the engine at a Unix socket calls itself, such as `Docker 28.1.1`. Blocks up to 5 s.

    Raises:
        NoEngineError: if nothing there can be used.
    """
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/version")
        said: dict[str, Any] = json.loads(connection.getresponse().read())
        return f"Docker {said['Version']}"
    except FileNotFoundError:
        raise NoEngineError("no Docker here: replicas are processes", "") from None
    except PermissionError:
        raise NoEngineError(
            f"this user may not use {path}", "join its group: `sudo usermod -aG docker $USER`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        raise NoEngineError(
            f"nothing that can be used answers at {path} ({error})", "start Docker"
        ) from error
    finally:
        connection.close()
