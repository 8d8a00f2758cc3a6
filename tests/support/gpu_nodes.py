"""Node agents with stand-in GPUs, beside a running `forebay up`; their Tritons run on the CPU."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

import psutil

from tests.support.forebay_up import ROOT, ForebayUp
from tests.support.nvml_standin import Script

STOP_TIMEOUT_S = 60.0
SAME = (
    "--nats-url",
    "--nats-credentials-file",
    "--autoscaler",
    "--metrics",
    "--triton-home",
)


class GpuNode:
    """One agent in a process of its own, which finds the GPUs of a script."""

    def __init__(self, mesh: ForebayUp, name: str, script: Script, *flags: str) -> None:
        """Prepares it.

        Args:
            mesh: what it joins.
            name: of the node.
            script: what NVML says there.
            flags: further ones of the agent.
        """
        self.name = name
        self.script = script
        self.state_dir = mesh.state_dir.with_name(f"{mesh.state_dir.name}-{name}")
        self._mesh = mesh
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> str:
        """What it has logged."""
        return self._output.read_text()

    @property
    def _output(self) -> Path:
        return self.state_dir.with_suffix(".console")

    def __enter__(self) -> Self:
        # As the mesh's own node was told.
        words = psutil.Process(self._mesh.pid("node-1")).cmdline()
        theirs = dict(itertools.pairwise(words))
        flags = {name: theirs[name] for name in SAME} | {
            "--node": self.name,
            "--state-dir": str(self.state_dir),
            "--slots": "0",
        }
        with self._output.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "services.node_agent.main"),
                    *(word for pair in flags.items() for word in pair),
                    *self._flags,
                ],
                env={**os.environ, **self.script.environment},
                cwd=ROOT,
                stdout=console,
                stderr=console,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "entered"
        self._process.terminate()
        try:
            assert self._process.wait(STOP_TIMEOUT_S) == 0, self.console
        finally:
            self._process.kill()
            self._process.wait()

    def triton_pid(self, replica_id: str) -> int:
        """Process id of a replica's Triton."""
        record = self.state_dir / "replicas" / replica_id / "process.json"
        return int(json.loads(record.read_text())["pid"])
