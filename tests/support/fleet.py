"""The services of a fleet as processes on this machine: two of each that may be two."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from forebay.local import triton_setup
from tests.support.eventually import eventually
from tests.support.free_port import free_address

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0


class Fleet:
    """Two routers, two autoscalers, metrics and two nodes on a given NATS.

    Attributes:
        routers: addresses.
        autoscalers: addresses.
        metrics: address.
    """

    def __init__(
        self,
        directory: Path,
        nats_url: str,
        *flags: str,
        environments: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Prepares the processes.

        Args:
            directory: for logs and state; is created.
            nats_url: of all nats-servers.
            flags: further ones for every process.
            environments: further variables of a process by its name, such as `node-0`.
        """
        self._environments = environments or {}
        self._directory = directory
        self._flags = ("--nats-url", nats_url, "--log-format", "json", *flags)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        addresses = [free_address() for _ in range(5)]
        self.routers, self.autoscalers, self.metrics = addresses[:2], addresses[2:4], addresses[4]

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._stop()
            raise
        return self

    async def _start(self) -> None:
        self._directory.mkdir(parents=True)
        home = triton_setup.default_home()
        triton_setup.set_up(home)
        self._spawn("metrics", "metrics", "--listen", self.metrics, "--http-listen", "127.0.0.1:0")
        for number, address in enumerate(self.autoscalers):
            self._spawn(
                f"autoscaler-{number}",
                "autoscaler", "--listen", address, "--metrics", self.metrics,
            )  # fmt: skip
        for number, address in enumerate(self.routers):
            self._spawn(f"router-{number}", "router", "--listen", address)
        for number in range(2):
            self._spawn(
                f"node-{number}",
                "node_agent", "--node", f"node-{number}",
                "--state-dir", str(self._directory / f"node-{number}"),
                "--autoscaler", ",".join(self.autoscalers), "--metrics", self.metrics,
                "--triton-home", str(home),
            )  # fmt: skip
        await eventually(self._all_started, timeout_s=START_TIMEOUT_S)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        try:
            for process in self._processes.values():
                process.wait(STOP_TIMEOUT_S)
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()

    async def forebay(self, *words: str | Path) -> str:
        """Runs the command line against the mesh; returns what it prints."""
        environment = {
            **os.environ,
            "FOREBAY_ROUTER": self.routers[0],
            "FOREBAY_AUTOSCALER": self.autoscalers[0],
            "FOREBAY_METRICS": self.metrics,
        }
        command = [sys.executable, "-m", "forebay.cli.main", *map(str, words)]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, name: str) -> None:
        """Ends a process with SIGKILL; it is not started again."""
        self._processes[name].kill()
        self._processes[name].wait()

    def log(self, name: str) -> str:
        """What a process has logged."""
        return (self._directory / f"{name}.log").read_text()

    def _spawn(self, name: str, package: str, *flags: str) -> None:
        ready_file = self._directory / f"{name}.json"
        command = [sys.executable, "-m", f"services.{package}.main", *self._flags, *flags]
        with (self._directory / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*command, "--ready-file", str(ready_file)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environments.get(name, {})},
            )

    def _all_started(self) -> bool:
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name} ended: {self.log(name)[-3000:]}"
            ready_file = self._directory / f"{name}.json"
            if not ready_file.exists() or not json.loads(ready_file.read_text())["pid"]:
                return False
        return True
