"""GPUs without hardware: a library that the real binding loads in place of NVIDIA's.

`build` makes `libnvidia-ml.so.1` from nvml.c. A process with `Script.environment` finds it; what it
says is in a file, which is read again whenever it has changed. The lines of that file:

    driver 0                                   the driver is not loaded
    device UUID key=value …                    a GPU, or with parent=UUID an instance of one
    process UUID PID BYTES                     a process that holds memory on a device
    error CALL CODE [UUID]                     a call fails, on one device or on all
    hang CALL MS [UUID]                        a call takes this long
    event UUID TYPE DATA [GI CI]               happens to whoever waits when the line is added

Keys of a device are the fields of `StandInGpu`; -1 means that it does not support the query.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pytest

GIB = 1 << 30
SOURCE = Path(__file__).with_name("nvml.c")
VARIABLE = "FOREBAY_STAND_IN_NVML"

XID, DOUBLE_BIT_ECC, RECOVERY_ACTION = 0x8, 0x2, 0x8000
NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST, RESET_REQUIRED, UNKNOWN = 3, 4, 15, 16, 999


def uuid(number: int) -> str:
    """The UUID of a GPU."""
    return f"GPU-{number:08x}-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class StandInGpu:
    """A GPU, or with `parent` a MIG instance of one."""

    uuid: str
    name: str = "NVIDIA L4"
    memory: int = 24 * GIB
    used: int = GIB
    utilization: int = 37
    temperature: int = 45
    power: int = 30_000
    limit: int = 72_000
    corrected: int = 0
    uncorrected: int = 0
    pending: int = 0
    failed: int = 0
    recovery: int | None = None
    lost: int = 0
    mig: int = 0
    events: int = 1
    parent: str = ""
    gi: int = -1
    ci: int = -1

    def line(self) -> str:
        """As the script has it."""
        pairs = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "uuid"}
        pairs["name"] = self.name.replace(" ", "_")
        said = " ".join(f"{k}={v}" for k, v in pairs.items() if v not in (None, ""))
        return f"device {self.uuid} {said}"


def instance(parent: str, number: int, memory: int = 10 * GIB) -> StandInGpu:
    """A MIG instance, which supports what real ones do."""
    return StandInGpu(
        uuid=f"MIG-{number:08x}{parent[12:]}",
        name="NVIDIA A100-SXM4-40GB MIG 2g.10gb",
        memory=memory,
        utilization=-1,
        temperature=-1,
        power=-1,
        limit=-1,
        corrected=-1,
        uncorrected=-1,
        mig=-1,
        parent=parent,
        gi=number,
        ci=0,
    )


@dataclass(slots=True)
class Script:
    """What the library says. Each method changes it at once.

    Attributes:
        directory: has the library and gets the file.
        gpus: by UUID, in NVML's order.
    """

    directory: Path
    gpus: dict[str, StandInGpu] = field(default_factory=dict)
    _driver: bool = True
    _processes: list[str] = field(default_factory=list)
    _rules: dict[str, str] = field(default_factory=dict)
    _events: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Has a process find the library and its script."""
        return {"LD_LIBRARY_PATH": str(self.directory), VARIABLE: str(self.file)}

    @property
    def file(self) -> Path:
        """The script."""
        return self.directory / "script.txt"

    def offer(self, *gpus: StandInGpu) -> None:
        """Adds GPUs."""
        self.gpus.update({gpu.uuid: gpu for gpu in gpus})
        self._write()

    def offer_count(self, count: int) -> list[str]:
        """Adds as many GPUs; returns their UUIDs."""
        made = [StandInGpu(uuid(i)) for i in range(len(self.gpus), len(self.gpus) + count)]
        self.offer(*made)
        return [gpu.uuid for gpu in made]

    def change(self, gpu_uuid: str, **figures: object) -> None:
        """Changes what a GPU says."""
        self.gpus[gpu_uuid] = replace(self.gpus[gpu_uuid], **figures)  # type: ignore[arg-type]
        self._write()

    def remove(self, gpu_uuid: str) -> StandInGpu:
        """Has NVML not find a GPU any more."""
        gone = self.gpus.pop(gpu_uuid)
        self._write()
        return gone

    def load_driver(self, loaded: bool) -> None:
        """Loads or unloads the driver."""
        self._driver = loaded
        self._write()

    def processes(self, gpu_uuid: str, used_bytes: dict[int, int]) -> None:
        """Says which processes hold memory on a GPU, in place of those before."""
        kept = [line for line in self._processes if line.split()[1] != gpu_uuid]
        self._processes = [*kept, *(f"process {gpu_uuid} {p} {b}" for p, b in used_bytes.items())]
        self._write()

    def fail(self, call: str, code: int, gpu_uuid: str = "") -> None:
        """Has a call return an error of NVML; 0 ends that."""
        self._rules[f"error {call}{gpu_uuid}"] = f"error {call} {code} {gpu_uuid}"
        self._write()

    def hang(self, call: str, milliseconds: int, gpu_uuid: str = "") -> None:
        """Has a call take this long; 0 ends that."""
        self._rules[f"hang {call}{gpu_uuid}"] = f"hang {call} {milliseconds} {gpu_uuid}"
        self._write()

    def xid(self, gpu_uuid: str, number: int, gi: int = -1, ci: int = -1) -> None:
        """Has the driver raise an Xid."""
        self.event(gpu_uuid, XID, number, gi, ci)

    def event(self, gpu_uuid: str, kind: int, data: int = 0, gi: int = -1, ci: int = -1) -> None:
        """Has something happen."""
        self._events.append(f"event {gpu_uuid} {kind} {data} {gi} {ci}")
        self._write()

    def _write(self) -> None:
        gpus = [gpu.line() for gpu in self.gpus.values()]
        driver = [] if self._driver else ["driver 0"]
        lines = [*driver, *gpus, *self._processes, *self._rules.values(), *self._events]
        whole = self.file.with_suffix(".new")
        whole.write_text("\n".join([*lines, ""]))
        # At once, as the library may be reading.
        os.replace(whole, self.file)


def build(directory: Path) -> Script:
    """Makes the library in a directory, with a script of no GPUs; skips without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build a stand-in for NVML with")
    name = "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-Wl,-soname,{name}"]
    command += ["-o", str(directory / name), str(SOURCE), "-lpthread"]
    subprocess.run(command, check=True, timeout=60)
    script = Script(directory)
    script.offer()
    return script
