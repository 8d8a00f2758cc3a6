"""Node agents that an autoscaler has added end with the mesh, however it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from forebay.local import state
from forebay.local.guardian import Guardian
from tests.support.eventually import eventually

# A process of a mesh that starts another one, as an autoscaler does with a node agent, and ends.
_STARTS_AN_AGENT = """\
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)", "services.node_agent.main"],
    start_new_session=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
print(child.pid)
"""

# A mesh that is killed: it has nobody but its guardian to tidy up.
_DIES = """\
import os, signal, sys
from pathlib import Path
from forebay.local import programs
from forebay.local.guardian import Guardian
state_dir = Path(sys.argv[1])
Guardian(state_dir, programs.environment(programs.MeshOptions(state_dir, state_dir)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[psutil.Process]:
    """A grandchild of the mesh whose parent has gone."""
    done = subprocess.run(
        [sys.executable, "-c", _STARTS_AN_AGENT],
        env={**os.environ, state.STATE_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    process = psutil.Process(int(done.stdout))
    yield process
    if process.is_running():
        process.kill()


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_agents_that_outlived_their_autoscaler_are_found_and_ended(
    tmp_path: Path, agent: psutil.Process
) -> None:
    assert [process.pid for process in state.agents_of(tmp_path)] == [agent.pid]
    assert agent.pid in {process.pid for process in state.processes_of(tmp_path)}
    assert not state.agents_of(tmp_path / "other")
    assert state.end_leftovers(tmp_path) == 1
    await eventually(lambda: ended(agent))


async def test_a_mesh_that_is_killed_takes_them_along(
    tmp_path: Path, agent: psutil.Process
) -> None:
    subprocess.run(
        [sys.executable, "-c", _DIES, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=60,
    )
    await eventually(lambda: ended(agent))


def test_a_mesh_that_has_ended_by_itself_needs_no_guardian(
    tmp_path: Path, agent: psutil.Process
) -> None:
    before = {process.pid for process in psutil.Process().children()}
    with Guardian(tmp_path, os.environ):
        pass
    assert {process.pid for process in psutil.Process().children()} <= before
    assert not ended(agent)
