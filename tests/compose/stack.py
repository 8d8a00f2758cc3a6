"""The mesh of the compose files under a project of its own, and what a test may do to it."""

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.compose.engine import ROOT, compose_command, docker, socket_path
from tests.compose.images import Images
from tests.support.free_port import free_address

UP_TIMEOUT_S = 300.0
DOWN_TIMEOUT_S = 240.0
_PORTS = (
    "NATS", "ROUTER", "ROUTER_2", "AUTOSCALER", "AUTOSCALER_2", "METRICS", "METRICS_HTTP",
    "JAEGER", "PROMETHEUS",
)  # fmt: skip


class Stack:
    """A project of `docker compose`, up in the block and gone after it.

    Attributes:
        project: its name, which is also that of its mesh.
        addresses: `host:port` on loopback by what is published, such as `router`.
    """

    def __init__(self, project: str, directory: Path, images: Images, *files: str) -> None:
        """Prepares it.

        Args:
            project: name of the project.
            directory: for settings, secrets and the nodes' state; removed with root's help.
            images: what it runs.
            files: compose files of `deploy/`, in order.
        """
        self.project = project
        self._directory = directory
        self.addresses = {port.lower(): free_address() for port in _PORTS}
        self.environment = {
            **os.environ,
            "FOREBAY_IMAGE": images.forebay,
            "FOREBAY_TRITON_CPU_IMAGE": images.triton,
            "NATS_IMAGE": images.nats,
            "PROMETHEUS_IMAGE": images.prometheus,
            "FOREBAY_TESTS": str(Path(__file__).parent),
            "FOREBAY_MESH": project,
            "FOREBAY_NODE": "node-1",
            "FOREBAY_NODE_DIR": str(directory / "node"),
            "FOREBAY_REPLICAS_NETWORK": f"{project}-replicas",
            "DOCKER_SOCKET": socket_path(),
            # One that answers late must not be taken for one that is gone.
            "COMPOSE_PARALLEL_LIMIT": "4",
            **{
                f"FOREBAY_{port}_PORT": self.addresses[port.lower()].rpartition(":")[2]
                for port in _PORTS
            },
        }
        paths = [ROOT / "deploy" / file for file in files]
        paths.append(Path(__file__).with_name("compose.test.yaml"))
        self._command = [*compose_command(), "--project-name", project]
        self._command += ["--env-file", str(directory / ".env")]
        self._command += [word for path in paths for word in ("--file", str(path))]

    def compose(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        """Runs `docker compose …` on the project; returns what it writes.

        Raises:
            AssertionError: if it fails, with what it says.
        """
        done = subprocess.run(
            [*self._command, *map(str, words)],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"compose {words[0]}: {done.stderr[-4000:]}"
        return done.stdout

    def forebay(self, *words: str | Path, timeout_s: float = 300.0) -> str:
        """Runs the `forebay` command of this checkout against the mesh; returns what it writes."""
        environment = {
            **os.environ,
            **{
                f"FOREBAY_{s.upper()}": self.addresses[s]
                for s in ("router", "autoscaler", "metrics")
            },
        }
        command = [os.sys.executable, "-m", "forebay.cli.main", *map(str, words)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, f"forebay {words[0]}: {done.stderr[-3000:]}"
        return done.stdout

    def services(self) -> dict[str, dict[str, Any]]:
        """What `docker compose ps` says of each service's container."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {found["Name"]: found for found in map(json.loads, lines)}

    def container(self, service: str) -> str:
        """Id of a service's container."""
        return self.compose("ps", "--quiet", service).strip()

    def crash(self, container: str) -> None:
        """Kills a container's first process, as a crash would: the engine knows of no order."""
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", container))
        assert pid > 0, f"{container} does not run"
        os.kill(pid, signal.SIGKILL)

    def healthy(self, container: str) -> bool:
        """Whether a container runs again after it crashed, and says that it serves."""
        form = "{{.RestartCount}} {{.State.Status}} {{.State.Health.Status}}"
        count, state, health = docker("inspect", "--format", form, container).split()
        return int(count) > 0 and (state, health) == ("running", "healthy")

    def replicas(self) -> list[str]:
        """Ids of the containers of replicas that run."""
        label = f"label=io.forebay.mesh={self.project}"
        return docker("ps", "--quiet", "--filter", label).split()

    def ask(self, what: str, path: str) -> Any:
        """What a service says over HTTP, as JSON."""
        with urllib.request.urlopen(f"http://{self.addresses[what]}{path}", timeout=20) as answer:
            return json.load(answer)

    def left(self) -> list[str]:
        """What the daemon has of it: containers, networks and volumes."""
        mine = f"label=com.docker.compose.project={self.project}"
        replicas = f"label=io.forebay.mesh={self.project}"
        return [
            *docker("ps", "--all", "--quiet", "--filter", mine).split(),
            *docker("ps", "--all", "--quiet", "--filter", replicas).split(),
            *docker("network", "ls", "--quiet", "--filter", mine).split(),
            *docker("volume", "ls", "--quiet", "--filter", mine).split(),
        ]

    def logs(self) -> str:
        """The last lines of every service."""
        return self.compose("logs", "--tail", "40", "--no-color")

    def __enter__(self) -> Self:
        subprocess.run(
            ["sh", str(ROOT / "deploy" / "init.sh"), "--directory", str(self._directory)],
            check=True,
            env=self.environment,
            capture_output=True,
        )
        self.environment["FOREBAY_SECRETS_DIR"] = str(self._directory / "secrets")
        try:
            self.compose("up", "--detach", "--wait", "--no-build", timeout_s=UP_TIMEOUT_S)
        except (AssertionError, subprocess.TimeoutExpired):
            print(self.logs())
            self.down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.logs())
        self.down()

    def down(self) -> None:
        """Ends it and removes what it kept."""
        self.compose("down", "--volumes", "--remove-orphans", timeout_s=DOWN_TIMEOUT_S)
