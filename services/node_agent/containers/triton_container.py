"""One Triton in a container: a `Triton` of the runtime's interface.

It is watched through the launcher, and called directly. While the launcher is away it goes on.
"""

import asyncio
import itertools
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import structlog

from forebay.v1.launcher_pb2 import ReplicaContainer
from services.node_agent.containers import container_log, ends
from services.node_agent.containers.launcher_link import LauncherLink
from services.node_agent.containers.record import RECORD, ContainerRecord
from services.node_agent.ending import end
from services.node_agent.runtime import RuntimeAwayError, StartRefusedError, TritonExitedError
from services.node_agent.triton.triton_client import TritonClient, TritonError

log = structlog.get_logger()

POLL_S = 0.05
WATCH_RETRY_S = 0.5

PAUSED_S = 3.0
"""A container that is frozen for longer is given up: its callers wait."""

STOP_TIMEOUT_S = 10.0
"""What Triton gets to finish: more than the `--exit-timeout-secs` it is started with."""

NOTICE_S = 0.5
"""How much later than its callers the engine may know that a container has ended."""

LOG_S = 2.0


class TritonContainer:
    """A Triton whose container was started."""

    shares_memory = False

    def __init__(
        self, link: LauncherLink, directory: Path, record: ContainerRecord, model: str
    ) -> None:
        """Begins to watch it and to follow its log; `stop` or `let_go` ends that.

        Args:
            link: to the launcher.
            directory: of the replica, called as the replica is.
            record: of the container.
            model: its model.
        """
        self.replica_id = directory.name
        self.record = record
        self._link = link
        self._directory = directory
        self._model = model
        self._ended = asyncio.Event()
        self._why = ""
        self._thaw: asyncio.TimerHandle | None = None
        self._watching = asyncio.create_task(self._watch())
        self._watching.add_done_callback(lambda _: self._ended.set())
        self._logging = asyncio.create_task(
            container_log.follow(link, self.replica_id, record.container_id, directory)
        )

    @property
    def address(self) -> str:
        """Where its gRPC service listens."""
        return self.record.address

    @property
    def access_key(self) -> str:
        """What its callers must show."""
        return self.record.access_key

    @property
    def image_id(self) -> str:
        """Its image."""
        return self.record.image_id

    @property
    def startup_s(self) -> float:
        """Time from its start to its replica's first READY; 0 before."""
        return self.record.startup_s

    def note_startup(self, startup_s: float) -> None:
        """Notes how long its start took, for an agent that adopts it."""
        self.record = replace(self.record, startup_s=startup_s)
        self.record.write(self._directory)

    def is_alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return not self._ended.is_set()

    async def wait_listening(self, timeout_s: float) -> None:
        """Waits until its Triton answers, which it does once its model is loaded.

        Raises:
            TritonExitedError: if it ends before.
            TimeoutError: if it takes longer.
        """
        client = TritonClient(self.address, self._model, self.access_key)
        try:
            async with asyncio.timeout(timeout_s):
                for _ in itertools.count():
                    if self._ended.is_set():
                        raise TritonExitedError
                    try:
                        await client.is_ready()
                    except TritonError:
                        await asyncio.sleep(POLL_S)
                    else:
                        return
        finally:
            await client.close()

    async def wait_exit(self) -> None:
        """Waits until it has ended, was replaced, or has been frozen for too long."""
        await self._ended.wait()
        if self._watching.done() and not self._watching.cancelled():
            # A defect in the watching is not an end of the container.
            self._watching.result()

    async def why_ended(self) -> str:
        """Why it ended, or a process in it did, with its log complete."""
        try:
            async with asyncio.timeout(NOTICE_S):
                await self._ended.wait()
        except TimeoutError:
            pass
        if self._why:
            await asyncio.wait({self._logging}, timeout=LOG_S)
            return self._why
        try:
            container = (await self._link.list()).get(self.replica_id)
        except (RuntimeAwayError, StartRefusedError):
            return ""
        return ends.why(container) if container is not None else ""

    async def stop(self, graceful: bool = True) -> None:
        """Has it stopped and removed; the runtime's survey removes it later if that fails."""
        try:
            await self._link.stop(self.replica_id, STOP_TIMEOUT_S if graceful else 0.0)
        except (RuntimeAwayError, StartRefusedError) as error:
            log.warning("container.not_stopped", replica=self.replica_id, reason=str(error))
        else:
            # Its last lines are on their way.
            await asyncio.wait({self._logging}, timeout=LOG_S)
        (self._directory / RECORD).unlink(missing_ok=True)
        await self.let_go()

    async def let_go(self) -> None:
        """Ends the watching; the container goes on."""
        if self._thaw is not None:
            self._thaw.cancel()
        await end(self._watching, self._logging)

    async def _watch(self) -> None:
        said = ""
        while True:
            try:
                async with aclosing(self._link.watch(self.replica_id)) as containers:
                    async for container in containers:
                        said = ""
                        if self._has_ended(container):
                            return
            except (RuntimeAwayError, StartRefusedError) as error:
                # A launcher may be away for hours.
                if str(error) != said:
                    said = str(error)
                    log.info("container.not_watched", replica=self.replica_id, reason=said)
            await asyncio.sleep(WATCH_RETRY_S)

    def _has_ended(self, container: ReplicaContainer) -> bool:
        paused = container.state == ReplicaContainer.STATE_PAUSED
        if not paused and self._thaw is not None:
            self._thaw.cancel()
            self._thaw = None
        if container.state in {ReplicaContainer.STATE_EXITED, ReplicaContainer.STATE_GONE}:
            self._why = ends.why(container)
            return True
        if container.container_id and container.container_id != self.record.container_id:
            self._why = "its container was replaced by another"
            return True
        if paused and self._thaw is None:
            loop = asyncio.get_running_loop()
            self._thaw = loop.call_later(PAUSED_S, self._give_up_frozen)
        return False

    def _give_up_frozen(self) -> None:
        self._why = f"its container was paused from outside for more than {PAUSED_S:g} s"
        self._ended.set()
