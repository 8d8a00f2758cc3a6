"""GPUs as NVML tells them: a library in C stands in for the driver's, loaded as that one is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GIB = 1 << 30

_LIBRARY = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} memory_v2_t;
typedef struct { unsigned int gpu, memory; } utilization_t;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, GPU_IS_LOST = 15 };
static const unsigned long long GIB = 1ULL << 30;

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlInitWithFlags(unsigned int flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "error"; }

int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index > 1) return INVALID_ARGUMENT;
    *device = (void *)(size_t)(index + 1);
    return SUCCESS;
}

static unsigned int number(void *device) { return (unsigned int)(size_t)device - 1; }

static int lost(void *device) {
    const char *index = getenv("STAND_IN_LOST_GPU");
    return index && (unsigned int)atoi(index) == number(device);
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    if (lost(device)) return GPU_IS_LOST;
    memory->total = (number(device) + 1) * 16 * GIB;
    memory->used = (number(device) + 1) * GIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2_t *memory) {
    memory_t old;
    int code = nvmlDeviceGetMemoryInfo(device, &old);
    memory->total = old.total;
    memory->used = old.used;
    memory->free = old.free;
    memory->reserved = 0;
    return code;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%08u-0000-0000-0000-000000000000", number(device));
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    snprintf(name, length, "Stand-in %u", number(device));
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization_t *utilization) {
    utilization->gpu = number(device) ? 100 : 37;
    utilization->memory = 5;
    return SUCCESS;
}
"""

_READ = """\
import asyncio
import json
import structlog
from google.protobuf.json_format import MessageToDict
from services.node_agent.inventory import GpuInventory

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

async def main():
    gpus = GpuInventory()
    await gpus.open()
    found = await gpus.read()
    print(json.dumps({
        "message": found.message,
        "gpus": [MessageToDict(gpu, preserving_proto_field_name=True) for gpu in found.gpus],
    }))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build a stand-in for NVML with")
    directory = tmp_path_factory.mktemp("nvml")
    source = directory / "nvml.c"
    source.write_text(_LIBRARY)
    built = directory / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source], check=True, timeout=60)
    return directory


def read(library: Path, **environment: str) -> dict[str, Any]:
    """What an agent finds."""
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_gpu_is_told_with_its_memory_in_bytes_and_its_load_as_a_ratio(library: Path) -> None:
    found = read(library)
    assert found["message"] == ""
    first, second = found["gpus"]
    assert first == {
        "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "product_name": "Stand-in 0",
        "memory_total_bytes": str(16 * GIB),
        "memory_used_bytes": str(GIB),
        "utilization_ratio": 0.37,
    }
    assert second["uuid"] == "GPU-00000001-0000-0000-0000-000000000000"
    assert second["memory_total_bytes"] == str(32 * GIB)
    assert second["utilization_ratio"] == 1.0


def test_a_gpu_that_fails_is_told_and_the_other_is_still_there(library: Path) -> None:
    found = read(library, STAND_IN_LOST_GPU="0")
    assert [gpu["product_name"] for gpu in found["gpus"]] == ["Stand-in 1"]
    assert found["message"] == "GPU 0: GPU is lost"


def test_a_machine_without_the_driver_says_why_it_has_no_gpus(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    found = read(tmp_path)
    assert found["gpus"] == []
    assert found["message"].startswith("no GPUs: NVML says")
