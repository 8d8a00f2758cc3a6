"""GPUs as an agent finds them, by the real binding on a library that stands in for the driver's."""

import re
import shutil
import time
from pathlib import Path

import psutil
import pytest

from tests.support import nvml_standin
from tests.support.eventually import eventually
from tests.support.nvml_standin import (
    DOUBLE_BIT_ECC,
    GIB,
    NO_PERMISSION,
    NOT_SUPPORTED,
    RECOVERY_ACTION,
    RESET_REQUIRED,
    UNKNOWN,
    Script,
    StandInGpu,
    instance,
    uuid,
)
from tests.support.nvml_standin.watched import inventory

BACK_S = 60.0
TOLD_S = 1.0
"""A fatal error is known after milliseconds. Of several, one at least must find a machine that does
nothing else just then."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml_standin.build(tmp_path_factory.mktemp("nvml")).directory


@pytest.fixture
def script(built: Path, tmp_path: Path) -> Script:
    shutil.copy(built / "libnvidia-ml.so.1", tmp_path)
    made = Script(tmp_path)
    made.offer()
    return made


def test_every_figure_is_told_in_the_projects_units(script: Script) -> None:
    script.offer(StandInGpu(uuid(0), corrected=3, uncorrected=1))
    script.offer(StandInGpu(uuid(1), utilization=100))
    script.processes(uuid(0), {41: 2 * GIB, 42: GIB})
    with inventory(script.environment) as gpus:
        found = gpus.now(replica=[41, 7])
    first, second = found["gpus"]
    assert found["message"] == found["cannot_start"] == ""
    assert first == {
        "uuid": uuid(0),
        "product_name": "NVIDIA L4",
        "memory_total_bytes": str(24 * GIB),
        "memory_used_bytes": str(GIB),
        "utilization_ratio": 0.37,
        "health": "HEALTH_OK",
        "temperature_celsius": 45.0,
        "power_watts": 30.0,
        "power_limit_watts": 72.0,
        "ecc_corrected_count": "3",
        "ecc_uncorrected_count": "1",
        "processes": [
            {"process_id": 41, "memory_used_bytes": str(2 * GIB), "replica_id": "replica"},
            {"process_id": 42, "memory_used_bytes": str(GIB)},
        ],
    }
    assert second["utilization_ratio"] == 1.0
    assert found["used_bytes"] == {"replica": 2 * GIB}


@pytest.mark.parametrize("count", [0, 1, 2, 8, 16])
def test_as_many_gpus_are_told_as_there_are(script: Script, count: int) -> None:
    expected = script.offer_count(count)
    with inventory(script.environment) as gpus:
        found = gpus.now()
    assert [gpu["uuid"] for gpu in found["gpus"]] == expected
    assert found["message"] == ""


def test_a_process_whose_memory_the_driver_does_not_tell_is_not_said_to_hold_none(
    script: Script,
) -> None:
    script.offer_count(1)
    not_available = 2**64 - 1
    script.processes(uuid(0), {41: not_available, 42: not_available})
    with inventory(script.environment) as gpus:
        found = gpus.now(replica=[41])
    assert "processes" not in found["gpus"][0]
    assert found["used_bytes"] == {}


FIELDS = {
    "nvmlDeviceGetName": ["product_name"],
    "nvmlDeviceGetMemoryInfo": ["memory_total_bytes", "memory_used_bytes"],
    "nvmlDeviceGetUtilizationRates": ["utilization_ratio"],
    "nvmlDeviceGetTemperature": ["temperature_celsius"],
    "nvmlDeviceGetPowerUsage": ["power_watts"],
    "nvmlDeviceGetEnforcedPowerLimit": ["power_limit_watts"],
    "nvmlDeviceGetTotalEccErrors": ["ecc_corrected_count", "ecc_uncorrected_count"],
    "nvmlDeviceGetComputeRunningProcesses_v3": ["processes"],
    "nvmlDeviceGetRemappedRows": [],
    "nvmlDeviceGetFieldValues": [],
    "nvmlDeviceGetMigMode": [],
}


def test_what_a_gpu_does_not_support_or_allow_leaves_that_field_unset(script: Script) -> None:
    script.offer_count(2)
    script.processes(uuid(0), {41: GIB})
    with inventory(script.environment) as gpus:
        whole = gpus.now()["gpus"][0]
    for number, (call, missing) in enumerate(FIELDS.items()):
        code = NO_PERMISSION if number % 2 else NOT_SUPPORTED
        script.fail(call, code, uuid(0))
        with inventory(script.environment) as gpus:
            found = gpus.now()
        script.fail(call, 0, uuid(0))
        assert found["message"] == "", call
        assert found["gpus"][0] == {k: v for k, v in whole.items() if k not in missing}, call
        assert found["gpus"][1]["health"] == "HEALTH_OK"


@pytest.mark.parametrize("code", [2, 10, 12, 14, 17, 20, UNKNOWN, 12345])
def test_any_other_error_is_told_and_the_gpu_is_still_there(script: Script, code: int) -> None:
    script.offer_count(2)
    script.fail("nvmlDeviceGetPowerUsage", code, uuid(1))
    with inventory(script.environment) as gpus:
        found = gpus.now()
    assert [gpu["health"] for gpu in found["gpus"]] == ["HEALTH_OK", "HEALTH_OK"]
    assert "power_watts" in found["gpus"][0]
    assert "power_watts" not in found["gpus"][1]
    assert found["message"].startswith("GPU 1: PowerUsage: ")


@pytest.mark.parametrize("call", ["nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo"])
async def test_a_gpu_that_nvml_finds_lost_is_told_as_lost_and_the_other_goes_on(
    script: Script, call: str
) -> None:
    script.offer_count(2)
    with inventory(script.environment) as gpus:
        await gpus.until_health("OK", "OK")
        script.fail(call, nvml_standin.GPU_IS_LOST, uuid(0))
        await gpus.until_health("LOST", "OK")
        assert list(gpus.now()["unusable"]) == [uuid(0)]
        script.fail(call, 0, uuid(0))
        await gpus.until_health("OK", "OK")


async def test_a_gpu_that_refuses_until_it_is_reset_is_faulty(script: Script) -> None:
    script.offer_count(1)
    script.fail("nvmlDeviceGetTemperature", RESET_REQUIRED)
    with inventory(script.environment) as gpus:
        await gpus.until_health("FAULTY")
        assert "until the GPU is reset" in gpus.now()["gpus"][0]["health_message"]
        script.fail("nvmlDeviceGetTemperature", 0)
        await gpus.until_health("OK")


async def test_a_fatal_xid_is_told_within_a_second_and_only_of_its_gpu(script: Script) -> None:
    script.offer_count(4)
    with inventory(script.environment) as gpus:
        await gpus.until_watched(*map(uuid, range(4)))
        script.xid(uuid(2), 31)
        script.xid(uuid(2), 79)
        took_s = [await gpus.until_health("OK", "OK", "FAULTY", "OK")]
        found = gpus.now()["gpus"][2]
        script.xid(uuid(0), 79)
        took_s.append(await gpus.until_health("FAULTY", "OK", "FAULTY", "OK"))
        script.xid(uuid(3), 79)
        took_s.append(await gpus.until_health("FAULTY", "OK", "FAULTY", "FAULTY"))
    print(f"a fatal Xid is known after {min(took_s) * 1000:.0f} ms")
    assert min(took_s) < TOLD_S
    assert found["xid_counts"] == {"31": "1", "79": "1"}
    assert "Xid 79 (GPU has fallen off the bus): restart the machine" in found["health_message"]


async def test_an_xid_of_a_program_and_an_ignored_one_are_counted_only(script: Script) -> None:
    script.offer_count(1)
    with inventory(script.environment, 109) as gpus:
        await gpus.until_watched(uuid(0))
        for xid in (13, 13, 43, 94, 109):
            script.xid(uuid(0), xid)

        def counted() -> bool:
            return gpus.now()["gpus"][0].get("xid_counts") == {
                "13": "2",
                "43": "1",
                "94": "1",
                "109": "1",
            }

        await eventually(counted)
        assert gpus.health() == ["OK"]


async def test_a_double_bit_error_is_fatal(script: Script) -> None:
    script.offer_count(3)
    took_s = []
    with inventory(script.environment) as gpus:
        await gpus.until_watched(*map(uuid, range(3)))
        for number in range(3):
            script.event(uuid(number), DOUBLE_BIT_ECC)
            expected = ["FAULTY"] * (number + 1) + ["OK"] * (2 - number)
            took_s.append(await gpus.until_health(*expected))
    assert min(took_s) < TOLD_S


async def test_without_events_the_counts_of_errors_are_watched(script: Script) -> None:
    script.offer(StandInGpu(uuid(0), events=0, uncorrected=2), StandInGpu(uuid(1)))
    with inventory(script.environment) as gpus:
        await gpus.until_watched(uuid(1))
        script.change(uuid(0), uncorrected=3)
        script.change(uuid(1), uncorrected=3)
        await gpus.until_health("FAULTY", "OK")


async def test_what_the_driver_asks_for_is_read_at_once_when_it_changes(script: Script) -> None:
    script.offer(StandInGpu(uuid(0), recovery=0))
    took_s = []
    with inventory(script.environment) as gpus:
        await gpus.until_watched(uuid(0))
        for _ in range(3):
            script.change(uuid(0), recovery=1)
            script.event(uuid(0), RECOVERY_ACTION)
            took_s.append(await gpus.until_health("FAULTY"))
            script.change(uuid(0), recovery=0)
            await gpus.until_health("OK")
    assert min(took_s) < TOLD_S


async def test_a_gpu_that_is_gone_is_lost_and_is_watched_again_once_it_is_back(
    script: Script,
) -> None:
    script.offer_count(3)
    with inventory(script.environment) as gpus:
        await gpus.until_health("OK", "OK", "OK")
        gone = script.remove(uuid(1))
        await gpus.until_health("OK", "LOST", "OK")
        await gpus.until_watched(uuid(0), uuid(2))
        lost = gpus.now()["gpus"][1]
        assert (lost["uuid"], lost["product_name"]) == (uuid(1), "NVIDIA L4")
        script.xid(uuid(2), 79)
        await gpus.until_health("OK", "LOST", "FAULTY")
        script.offer(gone)
        await gpus.until_health("OK", "OK", "FAULTY")
        await gpus.until_watched(uuid(0), uuid(1), uuid(2))
        script.xid(uuid(1), 48)
        await gpus.until_health("OK", "FAULTY", "FAULTY")


async def test_a_card_in_mig_mode_is_offered_as_its_instances(script: Script) -> None:
    parent = StandInGpu(uuid(0), "NVIDIA A100-SXM4-40GB", 40 * GIB, mig=1, utilization=-1)
    parts = [instance(uuid(0), 1), instance(uuid(0), 2, 20 * GIB)]
    script.offer(parent, *parts, StandInGpu(uuid(1)))
    script.processes(parts[1].uuid, {77: 3 * GIB})
    with inventory(script.environment) as gpus:
        first, second, other = gpus.now(r=[77])["gpus"]
        assert first["uuid"] == parts[0].uuid
        assert first["mig_parent_uuid"] == second["mig_parent_uuid"] == uuid(0)
        assert second["memory_total_bytes"] == str(20 * GIB)
        assert second["product_name"] == "NVIDIA A100-SXM4-40GB MIG 2g.10gb"
        assert second["temperature_celsius"] == 45.0
        assert second["processes"][0]["replica_id"] == "r"
        assert "mig_parent_uuid" not in other
        await gpus.until_watched(uuid(0), uuid(1))
        script.xid(uuid(0), 95, gi=2, ci=0)
        await gpus.until_health("OK", "FAULTY", "OK")
        script.xid(uuid(0), 79)
        await gpus.until_health("FAULTY", "FAULTY", "OK")


async def test_a_card_in_mig_mode_without_instances_says_what_to_do(script: Script) -> None:
    script.offer(StandInGpu(uuid(0), mig=1))
    with inventory(script.environment) as gpus:
        found = gpus.now()
    assert found["gpus"] == []
    assert "GPU 0 is in MIG mode and has no instances" in found["message"]


async def test_a_driver_that_goes_and_comes_back_takes_the_gpus_with_it(script: Script) -> None:
    script.offer_count(2)
    with inventory(script.environment) as gpus:
        await gpus.until_watched(uuid(0), uuid(1))
        script.xid(uuid(0), 79)
        await gpus.until_health("FAULTY", "OK")
        script.load_driver(False)
        await gpus.until_health("LOST", "LOST")
        assert "Driver Not Loaded" in gpus.now()["message"]
        script.load_driver(True)
        await gpus.until_health("OK", "OK", timeout_s=BACK_S)
        assert gpus.now()["message"] == ""


async def test_gpus_that_come_after_the_agents_start_are_found(script: Script) -> None:
    script.load_driver(False)
    with inventory(script.environment) as gpus:
        assert gpus.now()["message"] == "no GPUs: NVML says Driver Not Loaded"
        script.offer_count(1)
        script.load_driver(True)
        await gpus.until_health("OK", timeout_s=BACK_S)


def test_a_machine_without_the_driver_says_why_it_has_no_gpus(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    with inventory({"LD_LIBRARY_PATH": str(tmp_path)}) as gpus:
        found = gpus.now()
    assert found["gpus"] == []
    assert found["message"] == "no GPUs: NVML says NVML Shared Library Not Found"


async def test_while_nvml_hangs_reports_go_on_and_nothing_new_is_started(script: Script) -> None:
    script.offer_count(2)
    with inventory(script.environment) as gpus:
        await gpus.until_watched(uuid(0), uuid(1))
        script.hang("nvmlDeviceGetMemoryInfo", 7_000, uuid(1))
        found = await gpus.until("NVML has not answered for ")
        assert found["cannot_start"].startswith("NVML does not answer")
        assert [gpu["health"] for gpu in found["gpus"]] == ["HEALTH_OK", "HEALTH_OK"]
        assert found["gpus"][0]["memory_used_bytes"] == str(GIB)
        # Nothing waits for the call, which takes 7 s.
        assert sum(gpus.now()["read_s"] for _ in range(20)) < 2.0
        # What the driver tells is heard all the same.
        script.xid(uuid(0), 79)
        assert await gpus.until_health("FAULTY", "OK") < 3.0
        # One answer after so long is no sign of health.
        found = await gpus.until(" s to answer", timeout_s=60)
        assert re.match(r"NVML took ([7-9]|\d\d) s to answer", found["message"])
        assert found["cannot_start"].startswith("NVML does not answer")
        script.hang("nvmlDeviceGetMemoryInfo", 0, uuid(1))
        await eventually(lambda: not gpus.now()["cannot_start"], BACK_S)


def test_an_agent_whose_nvml_never_answers_starts_all_the_same(script: Script) -> None:
    script.offer_count(1)
    script.hang("nvmlInitWithFlags", 3_600_000)
    with inventory(script.environment) as gpus:
        found = gpus.now()
    assert found["gpus"] == []
    assert found["cannot_start"].startswith("NVML does not answer")


def test_reading_sixteen_gpus_is_cheap(script: Script) -> None:
    for number in script.offer_count(16):
        script.processes(number, {1000 + n: GIB for n in range(8)})
    with inventory(script.environment) as gpus:
        process = psutil.Process(gpus.pid)
        assert len(gpus.now()["gpus"]) == 16
        asked = [gpus.now()["read_s"] for _ in range(100)]
        before, started_s = process.cpu_times(), time.monotonic()
        # What is measured is time itself: seconds in which nobody asks.
        time.sleep(5)
        after, for_s = process.cpu_times(), time.monotonic() - started_s
    reading_s = (after.user + after.system - before.user - before.system) / for_s
    print(
        f"16 GPUs: {reading_s * 1000:.1f} ms of CPU per second to read them, "
        f"{sum(asked) / len(asked) * 1000:.2f} ms for a report"
    )
    assert reading_s < 0.1


async def test_what_cannot_be_true_is_not_told(script: Script) -> None:
    absurd = StandInGpu(
        uuid(0),
        used=25 * GIB,
        utilization=300,
        temperature=70_000,
        power=2**31 - 1,
        limit=2**31 - 1,
        corrected=2**62,
        uncorrected=2**62,
    )
    script.offer(absurd, StandInGpu(uuid(1), memory=-1))
    script.processes(uuid(0), {2**32 - 1: GIB, 5: 2**64 - 1, 6: 2**63, 7: GIB})
    with inventory(script.environment) as gpus:
        await gpus.until_watched(uuid(0), uuid(1))
        script.xid(uuid(0), 2**64 - 1)

        def counted() -> bool:
            return gpus.now()["gpus"][0].get("xid_counts") == {"9999": "1"}

        await eventually(counted)
        first, second = gpus.now()["gpus"]
    assert first["memory_used_bytes"] == first["memory_total_bytes"]
    assert first["utilization_ratio"] == 1.0
    assert [p["process_id"] for p in first["processes"]] == [7]
    for name in ("temperature_celsius", "power_watts", "power_limit_watts"):
        assert name not in first
    assert not any(name.startswith("ecc") for name in first)
    assert "memory_total_bytes" not in second
