"""The processes of the local provider: node agents that outlive the autoscaler that started them.

They must: a restart of the autoscaler changes no replica, and with a dying agent its replicas would
go. So they are started in a session of their own, and a file beside each one's state says which
process it is, with the time at which it started, because process ids are given out again. Whichever
autoscaler comes next finds them there, or by their arguments if it was killed before it wrote.
Whoever ends the mesh for good ends them too; `forebay up` does. All of this blocks: call it in a
thread.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.runtime.process import write_atomically

PREFIX = "auto-"
MODULE = "services.node_agent.main"
MAX_LOG_BYTES = 16 * 1024 * 1024

_NODE = re.compile(r"auto-[1-9][0-9]{0,3}")
_RECORD = "agent.json"
_LOG = "agent.log"
# The shell is gone at once, so that the agent is nobody's child: it ends with no autoscaler, and
# leaves none a dead child to collect. $0 is the log.
_SPAWN = '"$@" >>"$0" 2>&1 </dev/null & echo $!'
# psutil computes start times from clock ticks; they come back equal to some hundredths.
_SAME_START_S = 1.0


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A node agent that runs.

    Attributes:
        node: its node.
        start_time_s: when the process started, in seconds since the epoch.
    """

    node: str
    pid: int
    start_time_s: float


def running(state_dir: Path) -> dict[str, AgentProcess]:
    """Node agents of a state directory that run, by node; forgets those that have ended."""
    found: dict[str, AgentProcess] = {}
    for directory in _directories(state_dir):
        record = directory / _RECORD
        try:
            said = json.loads(record.read_text())
            agent = AgentProcess(directory.name, int(said["pid"]), float(said["start_time_s"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if _process(agent) is not None:
            found[agent.node] = agent
        else:
            record.unlink(missing_ok=True)
    return found


def adopt(state_dir: Path) -> list[AgentProcess]:
    """Writes down node agents of a state directory that run and are written down nowhere."""
    known = running(state_dir)
    lost = {
        str(directory): directory.name
        for directory in _directories(state_dir)
        if directory.name not in known
    }
    adopted: list[AgentProcess] = []
    if not lost:
        return adopted
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if MODULE not in words or process.status() == psutil.STATUS_ZOMBIE:
                continue
            node = next((lost[word] for word in words if word in lost), None)
            if node is not None:
                adopted.append(_write_down(state_dir, node, process))
    return adopted


def start(
    state_dir: Path, node: str, command: Sequence[str], environment: Mapping[str, str]
) -> AgentProcess:
    """Starts a node agent.

    Args:
        state_dir: of all agents; this one's is in it, under the node's name.
        node: its node.
        command: program and arguments.
        environment: of the process.

    Raises:
        OSError: if it cannot be started.
    """
    directory = state_dir / node
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = directory / _LOG
    # What an agent of this name said before would be taken for this one's.
    log.write_bytes(b"")
    spawned = subprocess.run(
        ["/bin/sh", "-c", _SPAWN, str(log), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        check=True,
        text=True,
        timeout=10,
    )
    try:
        return _write_down(state_dir, node, psutil.Process(int(spawned.stdout)))
    except (psutil.NoSuchProcess, ValueError) as error:
        raise OSError(f"the agent of {node} ended at once; its log is {log}") from error


def stop(agent: AgentProcess, number: signal.Signals = signal.SIGTERM) -> None:
    """Asks an agent to drain and end, or makes it."""
    process = _process(agent)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def bound_logs(state_dir: Path) -> None:
    """Empties logs that have grown too large; what is written next is at their beginning."""
    for directory in _directories(state_dir):
        log = directory / _LOG
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > MAX_LOG_BYTES:
                os.truncate(log, 0)


def _write_down(state_dir: Path, node: str, process: psutil.Process) -> AgentProcess:
    agent = AgentProcess(node, process.pid, process.create_time())
    said = {"pid": agent.pid, "start_time_s": agent.start_time_s}
    write_atomically(state_dir / node / _RECORD, json.dumps(said))
    return agent


def _process(agent: AgentProcess) -> psutil.Process | None:
    """The process itself; None if it has ended, whoever has its id now."""
    try:
        process = psutil.Process(agent.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        same = abs(process.create_time() - agent.start_time_s) < _SAME_START_S
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def _directories(state_dir: Path) -> list[Path]:
    try:
        return sorted(path for path in state_dir.iterdir() if _NODE.fullmatch(path.name))
    except FileNotFoundError:
        return []
