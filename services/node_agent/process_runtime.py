"""The `process` runtime: each Triton is a child process of this agent's user."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from forebay.v1.node_pb2 import REPLICA_RUNTIME_PROCESS, ReplicaRuntime
from services.node_agent import replica_environment
from services.node_agent.gpus import mps
from services.node_agent.models import volumes
from services.node_agent.models.model_cache import build_repository
from services.node_agent.models.python_environment import PythonEnvironments
from services.node_agent.runtime import Launch, Measured, Order, Triton
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.triton.triton_home import TritonHome, TritonHomeError
from services.node_agent.triton.triton_process import RECORD, TritonProcess, remove_shared_memory
from services.wire.offered_volumes import OfferedVolume

log = structlog.get_logger()


class ProcessRuntime:
    """Tritons as processes, from a prepared home."""

    kind: ReplicaRuntime = REPLICA_RUNTIME_PROCESS
    message = ""
    trace_url = ""
    """Where Tritons send spans of their own; empty: they make none."""

    def __init__(
        self,
        home: TritonHome,
        environments: PythonEnvironments,
        offered: Mapping[str, OfferedVolume],
        mps_pipes: Path = mps.DEFAULT_PIPES,
    ) -> None:
        """A runtime.

        Args:
            home: the prepared Triton.
            environments: Python environments of models.
            offered: this node's volumes by name.
            mps_pipes: where MPS' control daemon would have its pipes.
        """
        self._home = home
        self._environments = environments
        self._offered = offered
        self._mps_pipes = mps_pipes

    @classmethod
    def of(cls, settings: NodeAgentSettings, state_dir: Path) -> "ProcessRuntime":
        """The runtime of an agent's settings.

        Raises:
            OSError: if there is no usable Triton.
        """
        try:
            home = TritonHome.open(settings.triton_home, state_dir)
        except TritonHomeError as error:
            raise OSError(str(error)) from error
        directory = settings.environments_dir or home.directory.parent / "environments"
        environments = PythonEnvironments(directory, home.base_environment)
        mps_pipes = mps.pipe_directory(settings.mps_pipe_dir, os.environ)
        return cls(home, environments, settings.offered_volumes, mps_pipes)

    async def open(self) -> None:
        """Nothing to get to know: what runs is written down in each replica's directory."""

    async def run(self) -> None:
        """Processes can always be started; never returns."""
        await asyncio.Event().wait()

    async def wait_usable(self) -> None:
        """Processes can always be started."""

    async def prepare(self, order: Order) -> Launch:
        """See `Runtime.prepare`; a deployment's own image is for containers."""
        assignment, directory = order.assignment, order.directory
        environment = await self._environments.of(order.model, order.say)
        await asyncio.to_thread(
            build_repository,
            order.model,
            directory / "repository",
            order.deployment,
            assignment.resources.workers,
            replica_environment.runs_on_simulated_gpus(assignment),
        )
        await asyncio.to_thread(remove_shared_memory, assignment.replica_id)
        mounts = await asyncio.to_thread(volumes.mounts_of, assignment.volumes, self._offered)
        await asyncio.to_thread(volumes.link, directory, mounts)
        variables = replica_environment.variables(assignment, mounts)
        if mps.daemon_is_there(self._mps_pipes):
            uuids, share = tuple(assignment.gpu_uuids), assignment.resources
            limits = mps.limits(uuids, share.gpus, share.gpu_memory_bytes, self._mps_pipes)
            variables |= limits

        async def launch() -> Triton:
            return await asyncio.to_thread(
                TritonProcess.start,
                self._home,
                directory,
                assignment.replica_id,
                order.deployment,
                environment,
                replica_environment.visible_gpus(assignment),
                variables,
                self.trace_url,
            )

        return launch

    async def is_running(self, directory: Path) -> bool:
        """See `Runtime.is_running`."""
        return TritonProcess.adopt(directory) is not None

    async def adopt(self, directory: Path) -> Triton | None:
        """See `Runtime.adopt`."""
        return TritonProcess.adopt(directory)

    async def remove(self, directory: Path) -> None:
        """See `Runtime.remove`."""
        await end_leftover(directory)

    async def survey(self, known: Callable[[], Mapping[str, Triton | None]]) -> dict[str, Measured]:
        """See `Runtime.survey`; what belongs to no replica was found when the agent started."""
        found = {}
        for replica_id, triton in known().items():
            if isinstance(triton, TritonProcess):
                found[replica_id] = await asyncio.to_thread(triton.measure)
                await asyncio.to_thread(triton.bound_log)
        return found

    async def close(self) -> None:
        """There is nothing to let go of."""


async def end_leftover(directory: Path) -> None:
    """Ends the process that a former agent started in a replica's directory, and all it left."""
    process = TritonProcess.adopt(directory)
    if process is not None:
        log.info("orphan.stopped", replica=directory.name, pid=process.record.pid)
        await process.stop(graceful=False)
    (directory / RECORD).unlink(missing_ok=True)
    remove_shared_memory(directory.name)
