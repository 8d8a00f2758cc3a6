"""The containers of this node's replicas: started, watched, listed and stopped.

What a replica's container is, the engine keeps: its name and labels say whose it is, so that a
launcher that was restarted knows its own. A container without them is never touched.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import structlog

from forebay.v1.launcher_pb2 import ReplicaContainer
from services.launcher import container_state as states
from services.launcher.engine import Engine
from services.launcher.folders import folders_of
from services.launcher.gpu_devices import uses_cdi
from services.launcher.images import Images
from services.launcher.network import ReplicaNetwork
from services.launcher.refusal import Kind, RefusedError
from services.launcher.request_check import CheckedReplica
from services.launcher.settings import LauncherSettings
from services.launcher.template import (
    KIND_REPLICA,
    LABEL_REPLICA,
    LABEL_REQUEST,
    Surroundings,
    container_name,
    owner_labels,
    replica_container,
)
from services.launcher.watching import Watching

log = structlog.get_logger()

MAX_LISTED = 1024
"""Replicas of a node. One more could be started, and nobody would see it again."""
MEASURED_AT_ONCE = 32
"""The engine samples once a second and answers all who wait then."""
LOOK_ANYWAY_S = 30.0
LOOK_AGAIN_S = 1.0
"""Time between two looks while the engine does not say what a container is doing."""

_NOTHING = Surroundings()


class Replicas:
    """The containers of one node's replicas."""

    def __init__(
        self,
        engine: Engine,
        settings: LauncherSettings,
        state_dir: Path,
        images: Images,
        network: ReplicaNetwork,
        watching: Watching,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._state_dir = state_dir
        self._images = images
        self._network = network
        self._watching = watching
        self._labels = owner_labels(settings, KIND_REPLICA)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._stopping: set[str] = set()
        self._measuring = asyncio.Semaphore(MEASURED_AT_ONCE)

    async def start(self, replica: CheckedReplica) -> ReplicaContainer:
        """Makes and starts a replica's container, or returns the one that runs.

        Raises:
            RefusedError: if it cannot be started; nothing of it is left then.
        """
        name = container_name(self._settings, replica.replica_id)
        lock = self._locks.setdefault(replica.replica_id, asyncio.Lock())
        async with lock:
            if await self._runs_already(replica, name):
                return await self._with_processes(await self.look(replica.replica_id))
            await self._check_room()
            await self._images.check_id(replica.image_id)
            await self._network.ensure()
            folders = await asyncio.to_thread(folders_of, self._state_dir, replica)
            around = await self._surroundings(replica)
            config = replica_container(replica, self._settings, folders, around)
            container_id = await self._engine.create(name, config)
            try:
                await self._engine.start(container_id, name)
            except BaseException:
                # Also if the caller has gone: nobody would look for what is half made.
                with contextlib.suppress(RefusedError):
                    await asyncio.shield(self._engine.remove(container_id, name))
                raise
        log.info("replica.started", replica=replica.replica_id, container=container_id[:12])
        return await self._with_processes(await self.look(replica.replica_id))

    async def stop(self, replica_id: str, grace_s: float) -> None:
        """Ends and removes a replica's container; fine if there is none.

        Args:
            replica_id: the replica.
            grace_s: time its Triton gets to finish; 0 kills it at once.
        """
        name = container_name(self._settings, replica_id)
        # After a start that is under way: what it makes would else be left.
        lock = self._locks.setdefault(replica_id, asyncio.Lock())
        async with lock:
            found = await self._own(replica_id)
            if found is None:
                return
            container_id = str(found["Id"])
            self._stopping.add(container_id)
            try:
                if grace_s > 0 and found["State"]["Status"] in ("running", "paused", "restarting"):
                    await self._engine.stop(container_id, name, grace_s)
                await self._engine.remove(container_id, name)
            finally:
                self._stopping.discard(container_id)
        log.info("replica.stopped", replica=replica_id, container=container_id[:12])

    async def look(self, replica_id: str) -> ReplicaContainer:
        """What a replica's container is doing now, unmeasured.

        Raises:
            RefusedError: if the engine does not say.
        """
        found = await self._own(replica_id)
        if found is None:
            return states.gone(replica_id)
        container_id = str(found["Id"])
        return states.of_inspected(
            found,
            self._settings.network,
            killed_in=self._watching.had_memory_kill(container_id),
            stopping=container_id in self._stopping,
        )

    async def watch(self, replica_id: str) -> AsyncGenerator[ReplicaContainer, None]:
        """What a replica's container is doing, at once and on every change, until it has ended.

        Raises:
            RefusedError: if too many watch already.
        """
        if self._watching.is_full:
            raise RefusedError(Kind.RESOURCE_EXHAUSTED, "too many watch replicas already")
        sent: ReplicaContainer | None = None
        with self._watching.changes(replica_id) as changed:
            while True:
                changed.clear()
                now = await self._look_or_unknown(replica_id)
                if not states.same(sent, now):
                    sent = now
                    yield await self._with_processes(now)
                if now.state in states.ENDED:
                    return
                unknown = now.state == ReplicaContainer.STATE_UNKNOWN
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S if unknown else LOOK_ANYWAY_S):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def list_all(self) -> list[ReplicaContainer]:
        """Every container of this node's replicas, by replica; at most MAX_LISTED.

        Raises:
            RefusedError: if the engine does not say.
        """
        listed = await self._engine.list_containers(self._labels)
        ids = sorted({str(one["Labels"].get(LABEL_REPLICA, "")) for one in listed} - {""})

        async def one(replica_id: str) -> ReplicaContainer:
            async with self._measuring:
                return await self._with_usage(await self.look(replica_id))

        found = await asyncio.gather(*map(one, ids[:MAX_LISTED]))
        return [container for container in found if container.state != ReplicaContainer.STATE_GONE]

    async def own_container(self, replica_id: str) -> str | None:
        """Id of a replica's container; None if there is none."""
        found = await self._own(replica_id)
        return None if found is None else str(found["Id"])

    async def _own(self, replica_id: str) -> dict[str, Any] | None:
        found = await self._engine.inspect(container_name(self._settings, replica_id))
        if found is None or not states.belongs(found, {**self._labels, LABEL_REPLICA: replica_id}):
            return None
        return found

    async def _runs_already(self, replica: CheckedReplica, name: str) -> bool:
        found = await self._own(replica.replica_id)
        if found is None:
            return False
        status = found["State"]["Status"]
        if status not in ("running", "paused"):
            await self._engine.remove(str(found["Id"]), name)
            return False
        if not states.belongs(found, {LABEL_REQUEST: replica.digest}):
            raise RefusedError(
                Kind.FAILED_PRECONDITION,
                f"replica {replica.replica_id} runs already, started by another request: stop it "
                "first, or watch it",
            )
        return True

    async def _check_room(self) -> None:
        listed = await self._engine.list_containers(self._labels)
        if len(listed) >= MAX_LISTED:
            raise RefusedError(
                Kind.RESOURCE_EXHAUSTED,
                f"this node has {len(listed)} replicas in containers; at most {MAX_LISTED} are "
                "started",
            )

    async def _surroundings(self, replica: CheckedReplica) -> Surroundings:
        if not replica.gpu_uuids:
            return _NOTHING
        pipes = self._settings.mps_pipe_dir
        mps = pipes is not None and await asyncio.to_thread(pipes.is_dir)
        match self._settings.gpu_devices:
            case "auto":
                return Surroundings(cdi=uses_cdi(await self._engine.info()), mps=mps)
            case kind:
                return Surroundings(cdi=kind == "cdi", mps=mps)

    async def _look_or_unknown(self, replica_id: str) -> ReplicaContainer:
        try:
            return await self.look(replica_id)
        except RefusedError as error:
            return states.unknown(replica_id, error.message)

    async def _with_processes(self, container: ReplicaContainer) -> ReplicaContainer:
        """Adds the ids of a running container's processes, as far as the engine says them."""
        if container.state in states.LIVE:
            # One that has ended meanwhile has none, and whatever else is wrong shows where it
            # matters: not knowing is an answer.
            with contextlib.suppress(RefusedError):
                found = await self._engine.processes(container.container_id)
                container.process_ids.extend(found[: states.MAX_PROCESSES])
        return container

    async def _with_usage(self, container: ReplicaContainer) -> ReplicaContainer:
        """Adds what a running container uses too, for which the engine takes up to a second."""
        if container.state in states.LIVE:
            with contextlib.suppress(RefusedError):
                stats = await self._engine.stats(container.container_id)
                container.memory_used_bytes = states.memory_used_bytes(stats)
        return await self._with_processes(container)
