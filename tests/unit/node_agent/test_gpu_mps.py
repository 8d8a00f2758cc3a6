"""Replicas with a share of a GPU are held to it where MPS is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.node_agent.gpus import mps

PIPES = Path("/run/mps")


def test_a_share_is_a_percentage_and_its_declared_memory_a_limit() -> None:
    assert mps.limits(("GPU-a",), 0.5, 4_000_000_000, PIPES) == {
        "CUDA_MPS_PIPE_DIRECTORY": "/run/mps",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=3814M",
    }


def test_memory_that_is_not_declared_is_not_limited() -> None:
    assert "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT" not in mps.limits(("GPU-a",), 0.5, 0, PIPES)


@pytest.mark.parametrize(("gpus", "percent"), [(0.001, "1"), (1 / 3, "33.33"), (0.999, "99.9")])
def test_a_share_is_never_less_than_one_percent(gpus: float, percent: str) -> None:
    found = mps.limits(("GPU-a",), gpus, 0, PIPES)
    assert found["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == percent


@pytest.mark.parametrize(
    ("uuids", "gpus"),
    [(("GPU-a",), 1.0), (("GPU-a", "GPU-b"), 2.0), ((), 0.0), (("SIM-node-0",), 0.5)],
)
def test_only_a_share_of_a_real_gpu_is_limited(uuids: tuple[str, ...], gpus: float) -> None:
    assert mps.limits(uuids, gpus, 1 << 30, PIPES) == {}


def test_the_daemon_is_there_while_its_pipes_are_and_it_lives(tmp_path: Path) -> None:
    assert not mps.daemon_is_there(tmp_path)
    (tmp_path / "control").touch()
    assert mps.daemon_is_there(tmp_path), "another container's may have no process id here"
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{os.getpid()}\n")
    assert mps.daemon_is_there(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{ended.pid}\n")
    assert not mps.daemon_is_there(tmp_path)


def test_its_pipes_are_where_it_was_told_or_where_nvidia_has_them() -> None:
    assert mps.pipe_directory(PIPES, {mps.PIPES_VARIABLE: "/other"}) == PIPES
    assert mps.pipe_directory(None, {mps.PIPES_VARIABLE: "/other"}) == Path("/other")
    assert mps.pipe_directory(None, {}) == mps.DEFAULT_PIPES
