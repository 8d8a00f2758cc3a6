"""What `forebay doctor` says of a container engine."""

import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forebay.local import container_engine
from forebay.local.container_engine import NoEngineError


@contextmanager
def engine(path: Path, answer: bytes) -> Iterator[str]:
    """Something at a Unix socket that gives one answer to everybody."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(answer)

    with socketserver.ThreadingUnixStreamServer(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(path)
        finally:
            server.shutdown()
            thread.join()


def test_the_engine_says_its_version(tmp_path: Path) -> None:
    body = b'{"Version": "28.1.1"}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with engine(tmp_path / "sock", head + body) as path:
        assert container_engine.version(path) == "Docker 28.1.1"


def test_without_a_socket_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoEngineError, match="replicas are processes") as caught:
        container_engine.version(str(tmp_path / "none"))
    assert caught.value.remedy == ""


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"no\r\n"]
)
def test_what_is_no_engine_is_said_to_be_none(tmp_path: Path, answer: bytes) -> None:
    with engine(tmp_path / "sock", answer) as path:
        with pytest.raises(NoEngineError, match="nothing that can be used answers") as caught:
            container_engine.version(path)
    assert caught.value.remedy == "start Docker"


def test_a_socket_that_nobody_serves_is_said_to_be_so(tmp_path: Path) -> None:
    with engine(tmp_path / "sock", b"") as path:
        pass
    with pytest.raises(NoEngineError, match="nothing that can be used answers"):
        container_engine.version(path)


def test_docker_host_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert container_engine.socket_path() == "/run/user/1000/docker.sock"
    monkeypatch.delenv("DOCKER_HOST")
    assert container_engine.socket_path() == container_engine.DEFAULT_SOCKET
    assert os.path.isabs(container_engine.socket_path())
