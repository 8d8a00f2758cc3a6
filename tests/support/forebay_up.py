"""`forebay up` as a user runs it: a process in the foreground, on ports the kernel chose."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import psutil

from forebay.local import state, triton_setup
from tests.support.replayed import check_decisions

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
_PAUSE_S = 0.02

ECHO_DATATYPES = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "STRING",
)

_ECHO = """\
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        wait = pb_utils.get_input_tensor_by_name(request, "WAIT_S")
        if wait is not None:
            time.sleep(float(wait.as_numpy()[0]))
        inputs = [tensor for tensor in request.inputs() if tensor.name() != "WAIT_S"]
        for tensor in inputs:
            if tensor.name() == "IN_STRING" and b"raise" in tensor.as_numpy().tolist():
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("told to raise"))
        outputs = [
            pb_utils.Tensor(tensor.name().replace("IN_", "OUT_"), tensor.as_numpy())
            for tensor in inputs
        ]
        return pb_utils.InferenceResponse(outputs)
"""


def write_echo(directory: Path, name: str = "echo", **keys: Any) -> Path:
    """Writes a deployment whose model answers each optional input `IN_<type>` with `OUT_<type>`.

    A FP32 input `WAIT_S` of one element makes it wait. Returns the deployment file.
    """
    (directory / "model" / "1").mkdir(parents=True, exist_ok=True)
    (directory / "model" / "1" / "model.py").write_text(_ECHO)
    inputs = [
        f'{{ name: "IN_{kind}" data_type: TYPE_{kind} dims: [ -1 ] optional: true }}'
        for kind in ECHO_DATATYPES
    ]
    inputs.append('{ name: "WAIT_S" data_type: TYPE_FP32 dims: [ 1 ] optional: true }')
    outputs = [
        f'{{ name: "OUT_{kind}" data_type: TYPE_{kind} dims: [ -1 ] }}' for kind in ECHO_DATATYPES
    ]
    (directory / "model" / "config.pbtxt").write_text(
        f'backend: "python"\ninput [ {", ".join(inputs)} ]\noutput [ {", ".join(outputs)} ]\n'
    )
    file = directory / "deployment.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({"name": name, "model": "model", "canary": "off", **keys}))
    return file


class ForebayUp:
    """A running `forebay up`; stopped, and checked for what it left, at the end of the block."""

    def __init__(self, state_dir: Path, *flags: str) -> None:
        """Prepares it.

        Args:
            state_dir: of the mesh.
            flags: further ones for `up`.
        """
        self.state_dir = state_dir
        self._flags = flags
        self._output = state_dir.with_name(f"{state_dir.name}.console")
        self._process: subprocess.Popen[bytes] | None = None
        self.mesh: dict[str, Any] = {}

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of `forebay up` itself."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def console(self) -> str:
        """What it has printed."""
        return self._output.read_text()

    def start(self) -> None:
        """Starts it and waits until the mesh is ready."""
        triton_setup.set_up(triton_setup.default_home())
        ports = ("router", "autoscaler", "metrics", "metrics-http")
        flags = [word for port in ports for word in (f"--{port}-address", "127.0.0.1:0")]
        with self._output.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "forebay.cli.main", "up"),
                    *("--state-dir", str(self.state_dir), *flags, *self._flags),
                ],
                cwd=ROOT,
                stdout=console,
                stderr=console,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._mesh_file().get("pid") != self._process.pid:
            assert self._process.poll() is None, self.console
            assert time.monotonic() < deadline, self.console
            time.sleep(_PAUSE_S)
        self.mesh = self._mesh_file()

    def _mesh_file(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "mesh.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to stop and waits; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def pid(self, name: str) -> int:
        """Process id of one of the mesh's services, such as router or node-1, or of nats.

        Raises:
            OSError: if it does not run now.
        """
        if name != "nats":
            return int(json.loads((self.state_dir / "run" / f"{name}.json").read_text())["pid"])
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("nats-server"):
                    return int(child.pid)
        raise ProcessLookupError("nats-server does not run now")

    def kill(self, name: str) -> None:
        """Kills one of the mesh's processes."""
        os.kill(self.pid(name), signal.SIGKILL)

    def left(self) -> list[str]:
        """Command lines of the mesh's processes that are still there."""
        found = []
        for process in state.processes_of(self.state_dir):
            try:
                found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return [line for line in found if line]

    def forebay(self, *arguments: str | Path, timeout_s: float = 120) -> "Ran":
        """Runs a `forebay` command against this mesh."""
        return run_forebay(*arguments, state_dir=self.state_dir, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            running = self._process.poll() is None and bool(self.mesh)
            try:
                if running:
                    check_decisions(self.mesh["autoscaler"])
            finally:
                self.stop()
            assert self.left() == []


class Ran:
    """A command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def ok(self) -> "Ran":
        """Itself, if the command succeeded."""
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self

    def json(self) -> Any:
        """Its standard output, which must be one JSON value."""
        return json.loads(self.ok().out)


def run_forebay(
    *arguments: str | Path, state_dir: Path | None = None, timeout_s: float = 120
) -> Ran:
    """Runs a `forebay` command as a process of its own."""
    meshless = {
        key: value
        for key, value in os.environ.items()
        if key not in ("FOREBAY_ROUTER", "FOREBAY_AUTOSCALER", "FOREBAY_METRICS")
    }
    if state_dir is not None:
        meshless["FOREBAY_STATE_DIR"] = str(state_dir)
    done = subprocess.run(
        [sys.executable, "-m", "forebay.cli.main", *map(str, arguments)],
        cwd=ROOT,
        env=meshless,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return Ran(done)
