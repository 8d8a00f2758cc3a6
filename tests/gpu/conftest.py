"""These tests need a real NVIDIA GPU; where there is none they are skipped, and say so."""

import subprocess
import sys

import pytest

_COUNT = """\
import warnings
warnings.simplefilter("ignore")
import pynvml
pynvml.nvmlInit()
print(pynvml.nvmlDeviceGetCount())
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, which `-m "not gpu"` leaves out."""
    for item in items:
        if "tests/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", autouse=True)
def gpu_count() -> int:
    """How many GPUs there are; skips where there are none."""
    done = subprocess.run(
        [sys.executable, "-c", _COUNT], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer"
        pytest.skip(f"there is no NVIDIA GPU on this machine: {reason}")
    count = int(done.stdout)
    if not count:
        pytest.skip("there is no NVIDIA GPU on this machine: its driver counts none")
    return count
