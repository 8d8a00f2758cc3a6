"""The `docker` runtime: asks the node's launcher for containers.

This process has no access to the container engine: it names replicas, images and volumes, and the
launcher makes of that what its own template and settings allow.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import structlog

from forebay.v1.launcher_pb2 import ReplicaContainer, StartReplicaRequest
from forebay.v1.node_pb2 import REPLICA_RUNTIME_DOCKER, ReplicaRuntime
from services.node_agent import replica_environment
from services.node_agent.containers import readable
from services.node_agent.containers.launcher_link import LauncherLink
from services.node_agent.containers.record import RECORD, ContainerRecord
from services.node_agent.containers.triton_container import TritonContainer
from services.node_agent.models import volumes
from services.node_agent.models.model_cache import build_repository
from services.node_agent.models.volumes import Mount
from services.node_agent.process_runtime import end_leftover
from services.node_agent.runtime import (
    Launch,
    Measured,
    Order,
    RuntimeAwayError,
    StartRefusedError,
    Triton,
)
from services.node_agent.settings import NodeAgentSettings
from services.wire.offered_volumes import OfferedVolume

log = structlog.get_logger()

T = TypeVar("T")

MODEL_INSIDE = Path("/forebay/model")
"""Where a container sees its model."""
VOLUMES_INSIDE = Path("/forebay/volumes")
"""Where a container sees its volumes."""

LOOK_INTERVAL_S = 2.0
LOOK_TIMEOUT_S = 10.0
"""Longer than the launcher waits for its engine: what it says of that is worth more."""
OPEN_TIMEOUT_S = 3.0
"""How long a new agent waits before it goes on with what it finds written down."""
WAIT_S = 1.0
MAX_REQUIREMENTS_BYTES = 64 * 1024


class ContainerRuntime:
    """Tritons in containers of one launcher.

    Attributes:
        message: why no replica can be started now; empty if they can.
    """

    kind: ReplicaRuntime = REPLICA_RUNTIME_DOCKER

    def __init__(
        self,
        link: LauncherLink,
        node: str,
        offered: Mapping[str, OfferedVolume],
        changed: Callable[[], None],
    ) -> None:
        """A runtime that knows nothing yet.

        Args:
            link: to the launcher.
            node: name of this node; the launcher must be of the same.
            offered: this node's volumes by name.
            changed: called whenever `message` changes.
        """
        self._link = link
        self._node = node
        self._offered = offered
        self._changed = changed
        self._usable = asyncio.Event()
        self._left: dict[str, ReplicaContainer] | None = None
        self.message = "the launcher has not been asked yet"

    @classmethod
    def of(cls, settings: NodeAgentSettings, changed: Callable[[], None]) -> "ContainerRuntime":
        """The runtime of an agent's settings.

        Raises:
            OSError: if the launcher's socket cannot be one.
        """
        link = LauncherLink(settings.launcher_socket)
        return cls(link, settings.node, settings.offered_volumes, changed)

    async def open(self) -> None:
        """Gets to know which containers run, unless the launcher is away."""
        await self._look(OPEN_TIMEOUT_S)
        if self._usable.is_set():
            try:
                self._left = await self._link.list()
            except (RuntimeAwayError, StartRefusedError) as error:
                log.warning("containers.not_listed", reason=str(error))

    async def run(self) -> None:
        """Keeps `message` true, for ever."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def wait_usable(self) -> None:
        """Waits until replicas can be started, and at least a moment."""
        await asyncio.sleep(WAIT_S)
        await self._usable.wait()

    async def prepare(self, order: Order) -> Launch:
        """See `Runtime.prepare`."""
        if self.message:
            raise RuntimeAwayError(self.message)
        request = await self._unless_refused(self._prepare(order))

        async def launch() -> Triton:
            container = await self._unless_refused(self._link.start(request))
            record = ContainerRecord(
                request.access_key, request.image_id, container.container_id, container.address
            )
            await asyncio.to_thread(record.write, order.directory)
            return TritonContainer(self._link, order.directory, record, order.deployment)

        return launch

    async def _prepare(self, order: Order) -> StartReplicaRequest:
        assignment = order.assignment
        mounts = volumes.mounts_of(assignment.volumes, self._offered, seen=False)
        order.say("making sure of the image")
        image_id, _ = await asyncio.gather(
            self._link.prepare_image(assignment.image, order.say),
            # What a launcher that was away could not stop would be taken for this one.
            self._link.stop(assignment.replica_id, 0.0),
        )
        environment_id = await self._environment(image_id, order)
        repository = order.directory / "repository"
        await asyncio.to_thread(
            build_repository,
            order.model,
            repository,
            order.deployment,
            assignment.resources.workers,
            replica_environment.runs_on_simulated_gpus(assignment),
            MODEL_INSIDE,
        )
        await asyncio.to_thread(readable.by_all, order.model)
        return _request(order, image_id, environment_id, mounts)

    async def is_running(self, directory: Path) -> bool:
        """Whether a container runs, or may run for all that is known."""
        record = ContainerRecord.read(directory)
        if record is None:
            return False
        if self._left is None:
            return True
        container = self._left.get(directory.name, ReplicaContainer())
        running = container.state == ReplicaContainer.STATE_RUNNING
        return running and container.container_id == record.container_id

    async def adopt(self, directory: Path) -> Triton | None:
        """See `Runtime.adopt`."""
        if not await self.is_running(directory):
            return None
        record = ContainerRecord.read(directory)
        assert record is not None, "a container that runs is written down"
        model = directory.name.rpartition("-")[0]
        return TritonContainer(self._link, directory, record, model)

    async def remove(self, directory: Path) -> None:
        """Ends what is left of a replica, also if it was a process."""
        await end_leftover(directory)
        (directory / RECORD).unlink(missing_ok=True)
        await self._remove(directory.name)

    async def survey(self, known: Callable[[], Mapping[str, Triton | None]]) -> dict[str, Measured]:
        """Measures all containers in one call and removes those of no replica."""
        if self.message:
            # Its containers may even be another node's.
            return {}
        try:
            containers = await self._link.list()
        except (RuntimeAwayError, StartRefusedError) as error:
            log.info("containers.not_measured", reason=str(error))
            return {}
        replicas = known()
        for replica_id in containers.keys() - replicas.keys():
            await self._remove(replica_id)
        return {
            replica_id: Measured(container.memory_used_bytes, tuple(container.process_ids))
            for replica_id, container in containers.items()
        }

    async def close(self) -> None:
        """Closes the connection to the launcher."""
        await self._link.close()

    async def _unless_refused(self, work: Coroutine[Any, Any, T]) -> T:
        """Does something; what fails while the launcher is usable is a refusal.

        A registry that cannot be reached is UNAVAILABLE, too, and no reason to wait in silence.
        """
        try:
            return await work
        except RuntimeAwayError as error:
            await self._look()
            if self.message:
                raise
            raise StartRefusedError(str(error)) from error

    async def _look(self, timeout_s: float = LOOK_TIMEOUT_S) -> None:
        try:
            launcher = await self._link.get(timeout_s)
        except (RuntimeAwayError, StartRefusedError) as error:
            message = (
                f"the launcher at {self._link.socket} does not answer: {error}. Start "
                "forebay-launcher, or name its socket with --launcher-socket"
            )
        else:
            message = "" if launcher.usable else launcher.message or "the launcher is not usable"
            if launcher.node != self._node:
                message = (
                    f"the launcher at {self._link.socket} is of node {launcher.node}: give it and "
                    f"this agent, node {self._node}, the same setting node"
                )
        if message:
            self._usable.clear()
        else:
            self._usable.set()
        if message != self.message:
            log.info("launcher.state", message=message or "usable")
            self.message = message
            self._changed()

    async def _environment(self, image_id: str, order: Order) -> str:
        requirements = order.model / "requirements.txt"
        if not requirements.is_file():
            return ""
        content = await asyncio.to_thread(requirements.read_bytes)
        if len(content) > MAX_REQUIREMENTS_BYTES:
            raise StartRefusedError(
                f"the model's requirements.txt has {len(content)} bytes; at most "
                f"{MAX_REQUIREMENTS_BYTES} are taken"
            )
        return await self._link.prepare_environment(image_id, content, order.say)

    async def _remove(self, replica_id: str) -> None:
        try:
            await self._link.stop(replica_id, 0.0)
        except (RuntimeAwayError, StartRefusedError) as error:
            log.warning("orphan.not_removed", replica=replica_id, reason=str(error))


def _request(
    order: Order, image_id: str, environment_id: str, mounts: tuple[Mount, ...]
) -> StartReplicaRequest:
    assignment = order.assignment
    resources = assignment.resources
    gpu_uuids = replica_environment.visible_gpus(assignment)
    inside = [Mount(m.name, VOLUMES_INSIDE / m.name, m.read_only) for m in mounts]
    return StartReplicaRequest(
        replica_id=assignment.replica_id,
        deployment_id=order.deployment,
        image_id=image_id,
        model=order.model.name,
        environment_id=environment_id,
        gpu_uuids=gpu_uuids,
        gpus=resources.gpus if gpu_uuids else 0,
        gpu_memory_bytes=resources.gpu_memory_bytes if gpu_uuids else 0,
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        variables=replica_environment.variables(assignment, inside),
        volumes=[
            StartReplicaRequest.ReplicaVolume(name=m.name, read_only=m.read_only) for m in mounts
        ],
        access_key=secrets.token_urlsafe(24),
        generation=assignment.generation,
    )
