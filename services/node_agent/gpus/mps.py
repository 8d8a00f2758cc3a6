"""Holds replicas with a share of a GPU to that share, where NVIDIA's MPS can do it.

MPS (Multi-Process Service) is a daemon of the operator's: programs that find its pipes run on the
GPU side by side and can be limited. Without it, they take turns, and nothing limits them.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from services.node_agent.simulated_gpus import is_simulated

PIPES_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
DEFAULT_PIPES = Path("/tmp") / "nvidia-mps"  # noqa: S108  NVIDIA's own default
_PID_FILE = "nvidia-cuda-mps-control.pid"
_MIB = 1024 * 1024


def pipe_directory(named: Path | None, environment: Mapping[str, str]) -> Path:
    """Where the pipes would be: as named, as the daemon's variable says, or by NVIDIA's default."""
    return named or Path(environment.get(PIPES_VARIABLE) or DEFAULT_PIPES)


def daemon_is_there(pipes: Path) -> bool:
    """Whether an MPS control daemon has its pipes in a directory, and has not died since.

    It writes its process id beside them; one in another container is in none of our process ids, so
    that only an id that can be checked, and is gone, counts against it.
    """
    if not (pipes / "control").exists():
        return False
    try:
        pid = int((pipes / _PID_FILE).read_text())
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True
    return True


def limits(
    gpu_uuids: tuple[str, ...], gpus: float, gpu_memory_bytes: int, pipes: Path
) -> dict[str, str]:
    """The variables that hold one program to its share; none unless it has a share of one GPU.

    CUDA reads them when it starts: the part of the GPU's multiprocessors in percent, and the memory
    that may be taken on each device it sees, by its number, which is 0 for the only one (NVIDIA's
    MPS documentation, "Environment Variables").

    Args:
        gpu_uuids: what it was given.
        gpus: how much of it, 0 to 1 for a share.
        gpu_memory_bytes: declared; 0: no limit.
        pipes: of the daemon.
    """
    if not 0 < gpus < 1 or len(gpu_uuids) != 1 or is_simulated(gpu_uuids[0]):
        return {}
    found = {
        PIPES_VARIABLE: str(pipes),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{max(1.0, gpus * 100):.4g}",
    }
    if gpu_memory_bytes:
        found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={max(1, gpu_memory_bytes // _MIB)}M"
    return found
