"""How long a replica takes to start: Triton alone, as a process, and in a container, in turns.

Triton alone is the limit: the same binary and model, started and asked whether it is ready. A
replica counts from its assignment to READY: model, image, Triton, canary inference. The bar is what
a container adds to Triton's own start. Needs a container engine with the image, `forebay setup`,
and no rights but those to use the engine.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from rich.console import Console
from rich.table import Table

from benchmarks.dataplane import start_triton
from benchmarks.wakes import ANY_PORT, _upload
from forebay.local import triton_setup
from forebay.local.mesh import LocalMesh
from forebay.local.programs import MeshOptions
from forebay.v1.autoscaler_pb2 import WatchAssignmentsRequest
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.deployment_pb2 import (
    Canary,
    CreateDeploymentRequest,
    Deployment,
    UpdateDeploymentRequest,
)
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.node_pb2 import ListNodesRequest, ReplicaStatus
from forebay.v1.node_pb2_grpc import NodeServiceStub

BAR_S = 1.0
KINDS = ("process", "container")
POLL_S = 0.01
TIMEOUT_S = 60.0
LISTEN_S = 30.0
OUT = Path("benchmarks/out/replica_start.json")

console = Console()


async def triton_alone(home: Path) -> float:
    """Seconds from the start of a Triton as a process until its model is ready."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
        began_s = time.perf_counter()
        triton = await asyncio.to_thread(start_triton, Path(scratch), home)
        try:
            await triton.wait_listening(TIMEOUT_S)
            return time.perf_counter() - began_s
        finally:
            await triton.stop(graceful=False)


class Starter:
    """Starts and stops one replica on the node of its kind, again and again."""

    def __init__(self, kind: str, autoscaler: grpc.aio.Channel, metrics: grpc.aio.Channel) -> None:
        """Nothing is deployed yet."""
        self.kind = kind
        self._name = f"in-{kind}"
        self._deployments = DeploymentServiceStub(autoscaler)
        self._watches = AutoscalerServiceStub(autoscaler)
        self._nodes = NodeServiceStub(metrics)

    async def deploy(self, digest: str) -> None:
        """Makes its deployment, with no replica."""
        deployment = Deployment(model_digest=digest, max_ongoing_requests=4)
        deployment.resources.custom[self.kind] = 1
        deployment.canary.mode = Canary.MODE_ZEROS
        await self._deployments.CreateDeployment(
            CreateDeploymentRequest(deployment_id=self._name, deployment=deployment)
        )

    async def start(self) -> tuple[float, float]:
        """Seconds from the assignment to READY, and from Triton's start to it."""
        watch = self._watches.WatchAssignments(WatchAssignmentsRequest(node=f"nodes/{self.kind}"))
        try:
            await watch.read()
            await self._scale(1)
            while not (await watch.read()).assignments:
                pass
            assigned_s = time.perf_counter()
        finally:
            watch.cancel()
        replica = await self._until(ReplicaStatus.STATE_READY)
        took_s = time.perf_counter() - assigned_s
        return took_s, replica.startup_time.ToNanoseconds() / 1e9

    async def stop(self) -> None:
        """Ends the replica."""
        await self._scale(0)
        await self._until(None)

    async def _scale(self, replicas: int) -> None:
        deployment = Deployment(name=f"deployments/{self._name}", replicas=replicas)
        mask = FieldMask(paths=["replicas"])
        await self._deployments.UpdateDeployment(
            UpdateDeploymentRequest(deployment=deployment, update_mask=mask)
        )

    async def _until(self, state: ReplicaStatus.State | None) -> ReplicaStatus:
        """Waits for its replica to be in a state; None: to be gone."""
        deadline_s = time.perf_counter() + TIMEOUT_S
        while True:
            nodes = (await self._nodes.ListNodes(ListNodesRequest())).nodes
            found = [r for n in nodes for r in n.replicas if r.deployment.endswith(self._name)]
            if state is None and not found:
                return ReplicaStatus()
            for replica in found:
                reached: ReplicaStatus = replica
                if reached.state == state:
                    return reached
            if time.perf_counter() > deadline_s:
                said = [replica.message for replica in found] + [n.runtime_message for n in nodes]
                raise RuntimeError(f"{self._name} did not get there in {TIMEOUT_S:g} s: {said}")
            await asyncio.sleep(POLL_S)


@contextmanager
def program(directory: Path, module: str, *flags: str) -> Iterator[None]:
    """A service as a process of its own, until the block ends. Blocks until it listens."""
    directory.mkdir(parents=True)
    ready = directory / "ready.json"
    command = (sys.executable, "-m", module, "--ready-file", str(ready), *flags)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + LISTEN_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{module}: {(directory / 'log').read_text()[-2000:]}")
            time.sleep(POLL_S)
        yield
    finally:
        process.terminate()
        process.wait(60)


async def run(rounds: int, image: str) -> dict[str, Any]:
    """Measures everything; leaves nothing running."""
    home = triton_setup.default_home()
    found: dict[str, list[float]] = {"triton": []}
    for kind in KINDS:
        found[kind], found[f"{kind}_triton"] = [], []
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-bench-")))
        options = MeshOptions(
            state_dir=scratch / "mesh",
            triton_home=home,
            slots=0,
            router=ANY_PORT,
            autoscaler=ANY_PORT,
            metrics=ANY_PORT,
            metrics_http=ANY_PORT,
        )
        mesh = await stack.enter_async_context(LocalMesh(options))
        _start_nodes(stack, scratch, mesh, image)
        autoscaler = await stack.enter_async_context(
            grpc.aio.insecure_channel(mesh.addresses.autoscaler)
        )
        metrics = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.addresses.metrics))
        digest = await _upload(autoscaler)
        starters = [Starter(kind, autoscaler, metrics) for kind in KINDS]
        for starter in starters:
            await starter.deploy(digest)
        # The first round fetches the model and warms the file cache.
        for number in range(rounds + 1):
            alone_s = await triton_alone(home)
            took = {}
            for starter in starters:
                took[starter.kind] = await starter.start()
                await starter.stop()
            if number:
                found["triton"].append(alone_s)
                for kind, (took_s, triton_s) in took.items():
                    found[kind].append(took_s)
                    found[f"{kind}_triton"].append(triton_s)
    medians = {name: round(statistics.median(values), 3) for name, values in found.items()}
    least = {name: round(min(values), 3) for name, values in found.items()}
    added_s = round(medians["container"] - medians["triton"], 3)
    return {
        "rounds": rounds,
        "image": image,
        # Beside other work, containers get less: with control groups of version 1, all of them
        # together weigh as much as one process outside.
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "median_s": medians,
        "least_s": least,
        "added_by_container_s": added_s,
        "least_added_by_container_s": round(least["container"] - least["triton"], 3),
        "bar_s": BAR_S,
        "all_s": {name: [round(v, 3) for v in values] for name, values in found.items()},
    }


def _start_nodes(stack: AsyncExitStack, scratch: Path, mesh: LocalMesh, image: str) -> None:
    """One node of each kind."""
    state, socket = scratch / "container", scratch / "launcher.sock"
    name = f"bench{os.getpid()}"
    stack.enter_context(
        program(
            scratch / "launcher", "services.launcher.main", "--mesh", name, "--node", "container",
            "--state-dir", str(state), "--socket", str(socket), "--default-image", image,
            "--network", f"{name}-replicas",
        )
    )  # fmt: skip
    stack.callback(
        subprocess.run, ("docker", "network", "rm", f"{name}-replicas"), capture_output=True
    )
    own = {
        "process": ("--state-dir", str(scratch / "process")),
        "container": ("--state-dir", str(state), "--runtime", "docker",
                      "--launcher-socket", str(socket)),
    }  # fmt: skip
    for kind, flags in own.items():
        stack.enter_context(
            program(
                scratch / f"agent-{kind}", "services.node_agent.main", "--node", kind,
                "--nats-url", f"nats://{mesh.addresses.nats}",
                "--nats-credentials-file", str(scratch / "mesh" / "nats" / "credentials"),
                "--autoscaler", mesh.addresses.autoscaler,
                "--metrics", mesh.addresses.metrics, "--listen", ANY_PORT,
                "--resources", json.dumps({kind: 1}), *flags,
            )
        )  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Prints the table."""
    table = Table(title=f"From assignment to READY, {result['rounds']} times in turns")
    for column in ("what", "median", "least", "median of Triton's start to READY"):
        table.add_column(column, justify="right")
    medians, least = result["median_s"], result["least_s"]
    alone = "Triton alone, as a process"
    table.add_row(alone, f"{medians['triton']:.2f} s", f"{least['triton']:.2f} s", "")
    for kind in KINDS:
        triton_s = medians[f"{kind}_triton"]
        whole = (f"{medians[kind]:.2f} s", f"{least[kind]:.2f} s")
        table.add_row(f"replica: {kind}", *whole, f"{triton_s:.2f} s")
    console.print(table)
    added_s, least_s = result["added_by_container_s"], result["least_added_by_container_s"]
    verdict = "within" if added_s < BAR_S else "over"
    console.print(
        f"a replica in a container takes {added_s:.2f} s more than Triton alone: {verdict} the "
        f"bar of {BAR_S:g} s (least against least: {least_s:.2f} s)"
    )


def main() -> None:
    """Measures, prints, and writes benchmarks/out/replica_start.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", default="forebay/triton-cpu:local")
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments.rounds, arguments.image))
    show(result)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
