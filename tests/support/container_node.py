"""Nodes whose replicas are containers: a launcher and an agent each, on the real container engine.

The mesh around them is real, too: nats-server, router, metrics and autoscaler. An agent listens to
the autoscaler, or to a `Leader` through which the test says what it runs.
"""

import asyncio
import io
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as tritonclient

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.model_pb2 import Model
from forebay.v1.node_pb2 import NodeReport, ReplicaStatus
from services.launcher.main import serve as serve_launcher
from services.launcher.settings import LauncherSettings
from services.router.main import serve as serve_router
from services.router.settings import RouterSettings
from services.wire import model_archive
from tests.support.chaos_model import write_chaos
from tests.support.control_plane import LOOPBACK, ControlPlane, control_plane, parts
from tests.support.eventually import eventually
from tests.support.leader import Leader
from tests.support.serving import serving

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "forebay-test/triton-cpu:local"
DEPLOYMENT = "chaos"
READY = ReplicaStatus.STATE_READY
START_S = 90.0


def docker(*arguments: str) -> str:
    """Runs the engine's own client; returns what it writes."""
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise OSError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def skip_without_engine() -> None:
    """Skips a test where there is no container engine, or no image of Triton to run."""
    try:
        docker("image", "inspect", IMAGE)
    except FileNotFoundError:
        pytest.skip("there is no docker on this machine")
    except OSError as error:
        pytest.skip(f"replicas cannot run in containers here (`make test-images` first): {error}")


class ContainerNode:
    """One launcher, in the test's process, and one agent in a process of its own.

    Attributes:
        name: of the node.
        leader: says what it runs, unless the autoscaler does.
        state_dir: of both.
        socket: of the launcher.
    """

    def __init__(self, mesh: "ContainerMesh", name: str, directory: Path) -> None:
        """Prepares both; `launching` and `start_agent` start them."""
        self.name = name
        self.leader = Leader(interval_s=0.5)
        self.state_dir = directory / "state"
        # A socket's path is short.
        self.socket = Path(f"/tmp/{name}.sock")
        self._mesh = mesh
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._revision = 0

    @asynccontextmanager
    async def launching(self, **settings: Any) -> AsyncIterator[None]:
        """A launcher until the block ends; the next one finds what it left."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        settings.setdefault("default_image", IMAGE)
        async with serving(
            serve_launcher,
            LauncherSettings,
            self._directory / "launcher.json",
            mesh=self._mesh.name,
            node=self.name,
            state_dir=self.state_dir,
            socket=self.socket,
            network=self._mesh.network,
            default_memory_bytes=1 << 30,
            **settings,
        ):
            yield

    async def start_agent(self, autoscaler: str = "", metrics: str = "", *flags: str) -> None:
        """Starts an agent and waits until it listens."""
        ready = self._directory / "agent.json"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "services.node_agent.main", "--runtime", "docker"]
        command += ["--node", self.name, "--launcher-socket", str(self.socket)]
        command += ["--state-dir", str(self.state_dir), "--nats-url", self._mesh.plane.nats.url]
        command += ["--autoscaler", autoscaler or self.leader.address]
        command += ["--metrics", metrics or self.leader.address]
        command += ["--listen", LOOPBACK, "--ready-file", str(ready), "--ack-wait-s", "2"]
        command += ["--triton-home", "/nowhere", "--log-format", "json", *flags]
        with (self._directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        process = self._process
        await eventually(lambda: ready.exists() or process.poll() is not None, timeout_s=60)
        assert ready.exists(), self.agent_log()

    def kill_agent(self) -> None:
        """Ends the agent without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def stop_agent(self) -> None:
        """Has the agent drain and end, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, 45)
            finally:
                self._process.kill()
                self._process.wait()

    def agent_log(self) -> str:
        """What its agents wrote."""
        path = self._directory / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def say(self, *assignments: Assignment) -> None:
        """Has it run these replicas and no others."""
        self._revision += 1
        await self.leader.say(assignments, revision=self._revision)

    @property
    def last(self) -> NodeReport:
        """Its latest report."""
        return self.leader.last

    def replica(self, replica_id: str) -> ReplicaStatus:
        """What it said last of a replica.

        Raises:
            LookupError: if it did not.
        """
        for replica in self.last.replicas:
            if replica.replica_id == replica_id:
                found: ReplicaStatus = replica
                return found
        raise LookupError(f"{replica_id} is not reported")

    async def ready(self, replica_id: str, at_least_starts: int = 0) -> ReplicaStatus:
        """Waits until a replica is READY, after so many starts by this agent."""

        def look() -> ReplicaStatus:
            found = self.replica(replica_id)
            assert found.state == READY, found.message
            assert found.start_count >= at_least_starts
            return found

        return await eventually(look, START_S, f"{replica_id} READY: {self.agent_log()[-3000:]}")

    def container(self, replica_id: str) -> str:
        """Id of a replica's container; empty if there is none."""
        return docker(
            "ps", "-aq", "--no-trunc", "--filter", f"label=io.forebay.replica={replica_id}",
            "--filter", f"label=io.forebay.node={self.name}",
        )  # fmt: skip

    def containers(self) -> list[str]:
        """Ids of all its containers."""
        return docker("ps", "-aq", "--filter", f"label=io.forebay.node={self.name}").split()


class ContainerMesh:
    """A mesh for nodes whose replicas are containers.

    Attributes:
        plane: nats-server, metrics and autoscaler.
        router: address of the router.
        name: of the mesh.
        network: of its replicas.
        digest: of the chaos model.
    """

    def __init__(self, plane: ControlPlane, directory: Path, stack: AsyncExitStack) -> None:
        """Use `container_mesh`."""
        self.plane = plane
        self.router = ""
        self.name = f"t{secrets.token_hex(3)}"
        self.network = f"{self.name}-replicas"
        self.digest = ""
        self._directory = directory
        self._stack = stack
        self._nodes: list[ContainerNode] = []

    async def start(self) -> None:
        """Starts the router and stores the model."""
        addresses = await self._stack.enter_async_context(
            serving(
                serve_router,
                RouterSettings,
                self._directory / "router.json",
                nats_url=self.plane.nats.url,
                listen=LOOPBACK,
                ack_wait_s=2,
            )
        )
        self.router = addresses["router"]
        self.digest = await self.upload(write_chaos(self._directory / "chaos").parent / "model")
        await self.plane.create(DEPLOYMENT, model_digest=self.digest)

    async def upload(self, model: Path) -> str:
        """Stores a model's folder; returns its digest."""
        out = io.BytesIO()
        digest = model_archive.pack(model, out)
        content = out.getvalue()
        sent = parts(Model(digest=digest, size_bytes=len(content)), content)
        await self.plane.models.UploadModel(sent)
        return digest

    async def node(self, **settings: Any) -> ContainerNode:
        """A node whose launcher runs for as long as the mesh; its agent is the test's to start."""
        made = self.bare_node()
        await self._stack.enter_async_context(made.leader.serving())
        await self._stack.enter_async_context(made.launching(**settings))
        self._stack.push_async_callback(made.stop_agent)
        return made

    def bare_node(self) -> ContainerNode:
        """A node of which nothing runs."""
        name = f"{self.name}-{len(self._nodes) + 1}"
        directory = self._directory / name
        directory.mkdir()
        made = ContainerNode(self, name, directory)
        self._nodes.append(made)
        return made

    def assignment(self, number: int = 1, **fields: Any) -> Assignment:
        """A replica of the chaos model."""
        fields.setdefault("model_digest", self.digest)
        made = Assignment(
            replica_id=f"{DEPLOYMENT}-{number:08x}",
            deployment=f"deployments/{DEPLOYMENT}",
            generation=1,
            max_ongoing_requests=4,
            **fields,
        )
        made.request_timeout.FromSeconds(30)
        return made

    async def ask(self, word: str, timeout_s: float = 60) -> str:
        """What the chaos model says to a word, through the router."""
        async with tritonclient.InferenceServerClient(self.router) as client:
            tensor = tritonclient.InferInput("DO", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([word.encode()], dtype=object))
            result = await client.infer(DEPLOYMENT, [tensor], client_timeout=timeout_s)
        return bytes(result.as_numpy("SAID")[0]).decode()

    def clean(self) -> None:
        """Removes what is left in the engine."""
        left = docker("ps", "-aq", "--filter", f"label=io.forebay.mesh={self.name}").split()
        if left:
            docker("rm", "-f", *left)
        for network in docker("network", "ls", "-q", "--filter", f"name={self.network}").split():
            docker("network", "rm", network)


@asynccontextmanager
async def container_mesh(tmp_path: Path) -> AsyncIterator[ContainerMesh]:
    """A mesh without nodes; what it leaves in the engine is removed."""
    skip_without_engine()
    async with control_plane(tmp_path) as plane, AsyncExitStack() as stack:
        made = ContainerMesh(plane, tmp_path, stack)
        stack.callback(made.clean)
        await made.start()
        yield made
