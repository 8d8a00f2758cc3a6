"""Autoscalers in processes of their own, to be killed, paused and stopped."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from forebay.v1.autoscaler_pb2 import WatchAssignmentsRequest, WatchAssignmentsResponse
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from services.wire.channels import open_channel
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
ANSWER_TIMEOUT_S = 10.0


class AutoscalerProcess:
    """One forebay-autoscaler.

    Attributes:
        address: where it listens.
        channel: open to it.
    """

    def __init__(self, directory: Path) -> None:
        """Prepares one; `running_autoscaler` starts it.

        Args:
            directory: for its log and its ready file.
        """
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.channel: grpc.aio.Channel

    async def start(self, nats_url: str, metrics: str) -> None:
        """Starts the process and waits until it listens."""
        self._directory.mkdir(parents=True)
        ready_file = self._directory / "ready.json"
        command = [sys.executable, "-m", "services.autoscaler.main", "--listen", "127.0.0.1:0"]
        command += ["--nats-url", nats_url, "--metrics", metrics, "--node-grace-s", "60"]
        command += ["--ready-file", str(ready_file), "--log-format", "json"]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        await eventually(
            lambda: ready_file.exists() or self._process.poll() is not None,
            timeout_s=START_TIMEOUT_S,
        )
        assert ready_file.exists(), (self._directory / "log").read_text()
        self.address = json.loads(ready_file.read_text())["autoscaler"]

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    async def end(self) -> None:
        """Has it stop in order, whatever state it is in."""
        if self._process is None or self._process.poll() is not None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()

    def logged(self, event: str) -> list[dict[str, str]]:
        """What it has logged of an event."""
        # The last piece is a line that is being written, or nothing.
        lines = (self._directory / "log").read_text().split("\n")[:-1]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    async def told(self, node: str) -> WatchAssignmentsResponse:
        """What it tells a node to run.

        Raises:
            grpc.aio.AioRpcError: if it does not lead.
        """
        request = WatchAssignmentsRequest(node=f"nodes/{node}")
        stub = AutoscalerServiceStub(self.channel)
        call = stub.WatchAssignments(request, timeout=ANSWER_TIMEOUT_S)
        try:
            response = await call.read()
            assert response is not grpc.aio.EOF
            return response
        finally:
            call.cancel()

    async def epoch(self) -> int:
        """The term in which it leads; 0 if it does not."""
        try:
            return (await self.told("nobody")).epoch
        except grpc.aio.AioRpcError:
            return 0

    async def refusal(self) -> str:
        """Why it is UNAVAILABLE to nodes; empty if it is not, or not for a reason of its own."""
        try:
            await self.told("nobody")
        except grpc.aio.AioRpcError as error:
            return error.details() if error.code() is grpc.StatusCode.UNAVAILABLE else ""
        return ""


@asynccontextmanager
async def running_autoscaler(
    directory: Path, nats_url: str, metrics: str
) -> AsyncIterator[AutoscalerProcess]:
    """An autoscaler of its own process, ended with the block.

    Args:
        directory: for its log; is created.
        nats_url: of nats-server.
        metrics: address of metrics.
    """
    made = AutoscalerProcess(directory)
    try:
        await made.start(nats_url, metrics)
        async with open_channel(made.address) as channel:
            made.channel = channel
            yield made
    finally:
        await made.end()
