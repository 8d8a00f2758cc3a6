"""What the stand-in for NVML is tested for, on real GPUs."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.nvml_standin.watched import ROOT, inventory

MIB = 1 << 20
HELD_BYTES = 256 * MIB


@contextmanager
def program(gpu: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A program on a GPU, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.cuda_program", *words],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def usable() -> str:
    """UUID of a GPU that works; skips where none does."""
    with inventory({}) as gpus:
        found = [gpu["uuid"] for gpu in gpus.now()["gpus"] if gpu["health"] == "HEALTH_OK"]
    if not found:
        pytest.skip("no GPU of this machine works")
    return str(found[0])


def test_gpus_are_those_that_nvidia_smi_lists() -> None:
    query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, check=True, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no nvidia-smi to compare with")
    expected = {}
    for line in listed.stdout.splitlines():
        uuid, name, total = (word.strip() for word in line.split(","))
        expected[uuid] = (name, total)
    with inventory({}) as gpus:
        found = gpus.now()["gpus"]
    assert {gpu.get("mig_parent_uuid") or gpu["uuid"] for gpu in found} <= set(expected)
    for gpu in found:
        if "mig_parent_uuid" not in gpu:
            name, total = expected[gpu["uuid"]]
            assert gpu["product_name"] == name
            if total.isdigit():
                assert abs(int(gpu["memory_total_bytes"]) - int(total) * MIB) <= MIB


def test_every_figure_is_one_that_can_be_true(gpu_count: int) -> None:
    with inventory({}) as gpus:
        found = gpus.now()
    assert len({g.get("mig_parent_uuid") or g["uuid"] for g in found["gpus"]}) <= gpu_count
    assert found["cannot_start"] == ""
    for gpu in found["gpus"]:
        total, used = int(gpu.get("memory_total_bytes", 0)), int(gpu.get("memory_used_bytes", 0))
        assert 0 <= used <= total or not total
        assert 0 <= gpu.get("utilization_ratio", 0.0) <= 1
        assert 0 < gpu.get("temperature_celsius", 40.0) < 120
        assert 0 <= gpu.get("power_watts", 0.0) < 3000
        assert int(gpu.get("ecc_uncorrected_count", 0)) >= 0


async def test_memory_of_a_program_is_its_replicas() -> None:
    uuid = usable()
    with inventory({}) as gpus, program(uuid, "hold", str(HELD_BYTES)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def told() -> bool:
            return any(gpu.get("processes") for gpu in gpus.now()["gpus"])

        def counted() -> bool:
            return bool(gpus.now(mine=[holder.pid])["used_bytes"].get("mine", 0) >= HELD_BYTES)

        try:
            # The first reading after it began is up to a second away.
            await eventually(told, 10.0)
        except AssertionError:
            pytest.skip("the driver does not tell processes here, as in WSL or a container")
        await eventually(counted, 10.0)


async def test_an_error_of_a_program_is_counted_and_its_gpu_goes_on() -> None:
    uuid = usable()
    with inventory({}) as gpus:
        await eventually(lambda: gpus.now()["gpus"])
        if not gpus.now()["watched"]:
            pytest.skip("the driver tells no events of this GPU")
        with program(uuid, "fault") as faulty:
            assert faulty.wait(60) != 0

        def counted() -> bool:
            found = next(gpu for gpu in gpus.now()["gpus"] if gpu["uuid"] == uuid)
            assert found["health"] == "HEALTH_OK"
            return bool({"13", "31"} & set(found.get("xid_counts", {})))

        await eventually(counted, 10.0)
    with program(uuid, "hold", str(MIB)) as after:
        assert after.stdout is not None
        assert after.stdout.readline() == "held\n"


def test_reading_is_cheap(gpu_count: int) -> None:
    with inventory({}) as gpus:
        process = psutil.Process(gpus.pid)
        before, started_s = process.cpu_times(), time.monotonic()
        # What is measured is time itself: seconds in which nobody asks.
        time.sleep(5)
        after, for_s = process.cpu_times(), time.monotonic() - started_s
    share = (after.user + after.system - before.user - before.system) / for_s
    print(f"{gpu_count} GPUs: {share * 1000:.1f} ms of CPU per second to read them")
    assert share < 0.05 * gpu_count
