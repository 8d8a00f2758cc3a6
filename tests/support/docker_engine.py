"""A real container engine for tests, and a small image for them.

The engine is the one of $DOCKER_HOST or /var/run/docker.sock; where none answers, tests that need
one are skipped with a sentence. A test that ends an engine starts one of its own.
"""

import contextlib
import functools
import hashlib
import http.client
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

API = "v1.41"
SOURCE = Path(__file__).with_name("stand_in_triton.c")
START_TIMEOUT_S = 60.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float = 60.0) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class EngineApi:
    """What tests do to an engine behind the launcher's back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = url.removeprefix("unix://")

    def call(
        self, method: str, path: str, body: bytes | dict[str, Any] | None = None, **query: str
    ) -> Any:
        """Calls the engine; returns its JSON, or its text.

        Raises:
            RuntimeError: if it refuses.
        """
        connection = UnixConnection(self.path)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            kind = "application/json" if isinstance(body, dict) else "application/x-tar"
            asked = f"/{API}/{path}?{urllib.parse.urlencode(query)}"
            connection.request(method, asked, data, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text.decode()

    def answers(self) -> bool:
        """Whether an engine answers there."""
        try:
            return self.call("GET", "_ping") == "OK"
        except (OSError, RuntimeError, http.client.HTTPException):
            return False

    def has_image(self, name: str) -> bool:
        """Whether it has an image."""
        try:
            self.call("GET", f"images/{name}/json")
        except RuntimeError:
            return False
        return True

    def import_image(self, name: str, archive: bytes, *changes: str) -> None:
        """Makes an image of a file system and of lines of a Dockerfile."""
        repository, _, tag = name.rpartition(":")
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag)]
        query += [("changes", change) for change in changes]
        connection = UnixConnection(self.path)
        try:
            asked = f"/{API}/images/create?{urllib.parse.urlencode(query)}"
            connection.request("POST", asked, archive, {"Content-Type": "application/x-tar"})
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            assert '"error"' not in text, text
        finally:
            connection.close()

    def containers(self, label: str) -> list[dict[str, Any]]:
        """Containers with a label."""
        found: list[dict[str, Any]] = self.call(
            "GET", "containers/json", all="true", filters=json.dumps({"label": [label]})
        )
        return found

    def remove_all(self, label: str) -> None:
        """Removes every container with a label."""
        for container in self.containers(label):
            self.call("DELETE", f"containers/{container['Id']}", force="true", v="true")

    def remove_network(self, name: str) -> None:
        """Removes a network, if it is there."""
        found = self.call("GET", "networks", filters=json.dumps({"name": [name]}))
        for network in found:
            if network["Name"] == name:
                self.call("DELETE", f"networks/{network['Id']}")


@functools.cache
def engine_url() -> str | None:
    """Where an engine answers, as unix:///path; None if none does."""
    named = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return named if named.startswith("unix://") and EngineApi(named).answers() else None


def need_engine() -> EngineApi:
    """The engine of this machine; skips the test if there is none."""
    url = engine_url()
    if url is None:
        pytest.skip("no container engine answers on $DOCKER_HOST or /var/run/docker.sock")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc, which makes the small image that these tests run")
    return EngineApi(url)


@functools.cache
def stand_in_archive() -> bytes:
    """A file system with the stand-in for tritonserver and nothing else."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "tritonserver"
        subprocess.run(
            ["gcc", "-O1", "-static", "-o", str(program), str(SOURCE)], check=True, timeout=60
        )
        content = program.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in ("tmp", "forebay", "proc", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        entry = tarfile.TarInfo("bin/tritonserver")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def stand_in_name() -> str:
    """Name of the image with the stand-in, by its content."""
    return f"forebay-test/stand-in:{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"


@contextmanager
def stand_in_image(engine: EngineApi) -> Iterator[str]:
    """Makes the image of the stand-in, and removes it at the end if it was not there before."""
    name = stand_in_name()
    there = engine.has_image(name)
    if not there:
        engine.import_image(name, stand_in_archive(), "ENV PATH=/bin")
    try:
        yield name
    finally:
        if not there:
            engine.call("DELETE", f"images/{name}", force="true")


def obey(address: str, line: str, timeout_s: float = 30.0) -> str:
    """Has the stand-in at `host:port` do something, and returns what it says of it."""
    host, _, port = address.rpartition(":")
    said = b""
    with socket.create_connection((host, int(port)), timeout=timeout_s) as link:
        link.sendall(f"{line}\n".encode())
        while piece := link.recv(65536):
            said += piece
    return said.decode(errors="replace")


class OwnEngine:
    """A dockerd of the test's own, which may be killed and started again.

    It has a network namespace of its own, since an engine clears away the bridges of another, and
    a route to it, so that its containers are reached as those of the machine's engine are.
    """

    def __init__(self, directory: Path) -> None:
        """An engine that does not run yet.

        Args:
            directory: gets everything of it; short, since sockets are in it.
        """
        if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "ip", "nsenter"))):
            pytest.skip("an engine of the test's own needs root, dockerd, ip and nsenter")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._space = f"fb{secrets.token_hex(4)}"
        # Numbers that nothing else here should have, and two tests at once seldom both.
        self._net = f"10.{200 + secrets.randbelow(50)}"
        self.api = EngineApi(f"unix://{directory}/docker.sock")

    @property
    def log(self) -> str:
        """What it has said, the last of it."""
        return (self._directory / "dockerd.log").read_text()[-2000:]

    def start(self) -> Self:
        """Starts it and waits until it answers."""
        (self._directory / "pid").unlink(missing_ok=True)
        # Where nobody reaps it, a killed one seems alive, and is waited for.
        (self._directory / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
        with (self._directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "nsenter",
                    f"--net=/run/netns/{self._space}",
                    "dockerd",
                    f"--data-root={self._directory}/data",
                    f"--exec-root={self._directory}/exec",
                    f"--host={self.api.url}",
                    f"--pidfile={self._directory}/pid",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip-masq=false",
                    f"--default-address-pool=base={self._net}.128.0/17,size=24",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.api.answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)
        return self

    def end(self, number: signal.Signals) -> None:
        """Ends it by a signal, and waits until it has ended.

        SIGKILL ends its containerd too, as a crash of the machine's services would; the containers'
        own processes stay, as they do then.
        """
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(timeout=60)
        self._process = None
        if number == signal.SIGKILL:
            self._kill("containerd")

    def _kill(self, program: str) -> None:
        """Kills what has this engine's folder in its command line, and waits until it is gone."""
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if f"{self._directory}/" in line and line.split()[0].endswith(program):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    process.wait(timeout=10)

    def __enter__(self) -> Self:
        space, net = self._space, self._net
        _ip("netns", "add", space)
        _ip("link", "add", space, "type", "veth", "peer", "name", "outside", "netns", space)
        _ip("addr", "add", f"{net}.0.1/24", "dev", space)
        _ip("link", "set", space, "up")
        _ip("-n", space, "addr", "add", f"{net}.0.2/24", "dev", "outside")
        _ip("-n", space, "link", "set", "outside", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("route", "add", f"{net}.128.0/17", "via", f"{net}.0.2")
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            self.start()
        self.end(signal.SIGTERM)
        self._kill("")
        # Takes the route and the other end with it.
        _ip("link", "delete", self._space)
        _ip("netns", "delete", self._space)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([one for one in mounts if one.startswith(f"{self._directory}/")]):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
