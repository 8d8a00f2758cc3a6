"""Replicas as they are assigned, changed and taken away, on a whole mesh."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import forebay
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp

SLOW_TO_LOAD = """\
import time

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(30)
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    with ForebayUp(tmp_path_factory.mktemp("replicas") / "state") as up:
        yield up


def tritons(mesh: ForebayUp, deployment: str) -> set[int]:
    """Process ids of what Tritons of a deployment run."""
    return {
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"].startswith("triton")
        and f"{mesh.state_dir}/nodes/node-1/replicas/{deployment}-"
        in " ".join(process.info["cmdline"] or ())
    }


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


async def test_a_deployment_deleted_while_it_starts_leaves_no_triton(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    file = write_chaos(tmp_path, name="slow", model=SLOW_TO_LOAD)
    mesh.forebay("deploy", file, "--no-wait").ok()
    await eventually(lambda: tritons(mesh, "slow"), timeout_s=60)
    mesh.forebay("delete", "slow").ok()
    await eventually(lambda: not tritons(mesh, "slow"), timeout_s=60)


async def test_deployments_that_come_and_go_leave_nothing(mesh: ForebayUp, tmp_path: Path) -> None:
    """Deleted at all moments of their start."""
    for number in range(6):
        name = f"brief-{number}"
        file = write_chaos(tmp_path / name, name=name)
        mesh.forebay("deploy", file, "--no-wait").ok()
        mesh.forebay("delete", name).ok()

    def left() -> list[Path]:
        return [p for p in Path("/dev/shm").iterdir() if p.name.startswith("forebay_brief")]

    # The agent removes what a Triton leaves after its end.
    await eventually(lambda: not tritons(mesh, "brief") and not left(), timeout_s=90)


async def test_a_changed_time_limit_reaches_a_replica_that_runs_on(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    mesh.forebay("deploy", write_chaos(tmp_path, name="limited", request_timeout_s=60)).ok()
    before = tritons(mesh, "limited")
    mesh.forebay("deploy", write_chaos(tmp_path, name="limited", request_timeout_s=2)).ok()
    assert tritons(mesh, "limited") == before
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:

        async def is_ended_early() -> bool:
            started_s = time.monotonic()
            try:
                await client.infer("limited", do("wait:6"), timeout_s=30)
            except forebay.DeadlineExceededError as error:
                in_time = time.monotonic() - started_s < 6
                return in_time and "request_timeout_s = 2" in str(error)
            return False

        await eventually(is_ended_early, timeout_s=90)
    mesh.forebay("delete", "limited").ok()
