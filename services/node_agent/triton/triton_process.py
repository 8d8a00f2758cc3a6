"""The `process` runtime: one tritonserver as a child process, which outlives its agent.

A Triton is started in a session of its own and written down, so that an agent that was killed finds
its replicas again: adopted if they are alive, removed if they are not wanted. Its gRPC port is
chosen by the kernel and bound to loopback.
"""

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import structlog

from services.node_agent.runtime import Measured, TritonExitedError
from services.node_agent.traces.trace_names import triton_flags
from services.node_agent.triton.triton_home import TritonHome
from services.runtime.process import write_atomically

log = structlog.get_logger()

POLL_S = 0.02
LOOK_ANYWAY_S = 0.5
"""Longest time between two looks at its sockets, each of which takes milliseconds of CPU."""
STOP_TIMEOUT_S = 10.0
MAX_LOG_BYTES = 8 * 1024 * 1024
MAX_PROCESS_IDS = 256

RECORD = "process.json"
"""What is written down of a Triton, in its replica's directory."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """What tells a Triton from every other process, now and after a restart of the agent.

    Attributes:
        pid: process id, also the id of its session and process group.
        start_ticks: when it was started, in clock ticks since boot: ids are used again, and the
            wall clock can be set.
        port: its gRPC port on loopback; 0 until it listens.
        startup_s: time from its start to its replica's first READY; 0 before.
    """

    pid: int
    start_ticks: int
    port: int = 0
    startup_s: float = 0.0


class TritonProcess:
    """A running tritonserver: a `Triton` of the runtime's interface."""

    access_key = ""
    image_id = ""
    shares_memory = True

    def __init__(
        self, directory: Path, record: ProcessRecord, child: subprocess.Popen[bytes] | None
    ) -> None:
        """Use `start` or `adopt`."""
        self._directory = directory
        self._child = child
        self.record = record

    @classmethod
    def start(
        cls,
        home: TritonHome,
        directory: Path,
        replica_id: str,
        model: str,
        python_environment: Path,
        gpu_uuids: Sequence[str],
        variables: Mapping[str, str] | None = None,
        trace_url: str = "",
    ) -> "TritonProcess":
        """Starts a Triton on the repository in a replica's directory. Blocks shortly.

        Args:
            home: the prepared Triton.
            directory: of the replica; has `repository/`, gets `triton.log` and `process.json`.
            replica_id: names its shared memory.
            model: the model to load.
            python_environment: what the model's Python code runs in.
            gpu_uuids: the GPUs it may see; none hides all.
            variables: further ones of its environment.
            trace_url: where it sends spans; empty: it makes none.
        """
        _rotate(directory / "triton.log")
        environment = home.process_environment(python_environment, variables)
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpu_uuids)
        command = [
            str(home.binary),
            f"--model-repository={directory / 'repository'}",
            f"--backend-directory={home.backends}",
            "--model-control-mode=explicit",
            f"--load-model={model}",
            "--grpc-address=127.0.0.1",
            "--grpc-port=0",
            "--allow-http=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
            f"--backend-config=python,shm-region-prefix-name={_shared_memory_prefix(replica_id)}",
        ]
        if trace_url:
            command += triton_flags(trace_url, replica_id)
        with (directory / "triton.log").open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = cls(directory, ProcessRecord(child.pid, start_ticks(child.pid)), child)
        try:
            process._write()
        except OSError:
            process._kill_group()
            child.wait()
            raise
        return process

    @classmethod
    def adopt(cls, directory: Path) -> "TritonProcess | None":
        """The Triton that a former agent started in a directory, if it is alive and listens."""
        try:
            record = ProcessRecord(**json.loads((directory / RECORD).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        process = cls(directory, record, None)
        if process.is_alive() and record.port:
            return process
        _end_leftovers(directory)
        return None

    @property
    def address(self) -> str:
        """Where its gRPC service listens."""
        return f"127.0.0.1:{self.record.port}"

    @property
    def startup_s(self) -> float:
        """Time from its start to its replica's first READY; 0 before."""
        return self.record.startup_s

    def is_alive(self) -> bool:
        """Whether it runs; reaps it if it has ended and is our child."""
        if self._child is not None:
            return self._child.poll() is None
        try:
            alive = psutil.Process(self.record.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        return alive and start_ticks(self.record.pid) == self.record.start_ticks

    async def wait_listening(self, timeout_s: float) -> None:
        """Waits until it listens, which it does once its model is loaded, and notes the port.

        Raises:
            TritonExitedError: if it ends before.
            TimeoutError: if it takes longer.
        """
        if self.record.port and self.is_alive():
            return
        log_file = self._directory / "triton.log"
        looks = round(LOOK_ANYWAY_S / POLL_S)
        async with asyncio.timeout(timeout_s):
            seen = -1
            for look in itertools.count():
                if not self.is_alive():
                    raise TritonExitedError
                # It writes to its log that it listens, right after it does.
                written = log_file.stat().st_size
                if written != seen or not look % looks:
                    seen = written
                    port = await asyncio.to_thread(_listening_port, self.record.pid)
                    if port:
                        self._note(port=port)
                        return
                await asyncio.sleep(POLL_S)

    def note_startup(self, startup_s: float) -> None:
        """Notes how long its start took, for an agent that adopts it."""
        self._note(startup_s=startup_s)

    async def wait_exit(self) -> None:
        """Waits until it has ended, however long that takes."""
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self.record.pid)
        except ProcessLookupError:
            return
        ended = asyncio.Event()
        try:
            if not self.is_alive():
                return
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self.is_alive()

    async def stop(self, graceful: bool = True) -> None:
        """Ends it and everything it started; gives it time to finish if `graceful`."""
        if graceful and self.is_alive():
            os.kill(self.record.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.wait_exit()
            except TimeoutError:
                log.warning("triton.killed", pid=self.record.pid, after_s=STOP_TIMEOUT_S)
        self._kill_group()
        await self.wait_exit()
        (self._directory / RECORD).unlink(missing_ok=True)
        # A replica's directory is called as the replica is.
        remove_shared_memory(self._directory.name)

    async def why_ended(self) -> str:
        """Only its log tells."""
        return ""

    def measure(self) -> Measured:
        """Resident memory and ids of Triton and its children. Blocks for milliseconds."""
        try:
            root = psutil.Process(self.record.pid)
            family = [root, *root.children(recursive=True)]
            resident_bytes = sum(process.memory_info().rss for process in family)
        except psutil.NoSuchProcess:
            return Measured()
        ids = tuple(process.pid for process in family[:MAX_PROCESS_IDS])
        return Measured(resident_bytes, ids)

    def bound_log(self) -> None:
        """Keeps the log within 8 MiB and one older file of that size. Blocks shortly.

        Triton appends, so the file can be emptied under it; lines written meanwhile are lost.
        """
        path = self._directory / "triton.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)

    def _kill_group(self) -> None:
        """Kills what is left of it: the stubs of the Python backend share its process group."""
        try:
            os.killpg(self.record.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # Gone already; the group's id may even be another user's by now.
            pass

    def _note(self, **known: float) -> None:
        self.record = replace(self.record, **known)  # type: ignore[arg-type]
        self._write()

    def _write(self) -> None:
        write_atomically(self._directory / RECORD, json.dumps(asdict(self.record)))


def remove_shared_memory(replica_id: str) -> None:
    """Removes the shared memory that a killed Python backend left behind."""
    for path in Path("/dev/shm").glob(f"{_shared_memory_prefix(replica_id)}*"):  # noqa: S108
        path.unlink(missing_ok=True)


def _shared_memory_prefix(replica_id: str) -> str:
    return f"forebay_{replica_id}_"


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since boot (proc(5), field 22); -1 if gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def _end_leftovers(directory: Path) -> None:
    """Kills what a Triton of a directory has left, such as a stub that hangs."""
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["name"].startswith("triton") and f"{directory}/" in line:
            log.info("leftover.killed", pid=process.pid, directory=str(directory))
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def _listening_port(pid: int) -> int:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return 0
    ports = [c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN]
    return ports[0] if ports else 0


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
