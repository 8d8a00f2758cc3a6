"""The node agent's loop: assignments in, replicas started, kept or drained, state reported."""

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

import structlog

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.node_pb2 import NodeReport
from services.node_agent import node_resources
from services.node_agent.accepted_word import AcceptedWord
from services.node_agent.inventory import GpuInventory
from services.node_agent.reconcile import AssignedSet, accepts, reconcile
from services.node_agent.replica import Replica
from services.node_agent.runtime import Measured, Triton
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.simulated_gpus import Holding, Simulation
from services.node_agent.surroundings import Surroundings

log = structlog.get_logger()

KEPT_LOGS = 20

MEASURE_INTERVAL_S = 5.0
"""Between two measurements of memory: each walks the process table or asks the launcher."""


class Agent:
    """All replicas of this node."""

    def __init__(self, around: Surroundings) -> None:
        """No replicas yet."""
        self._around = around
        self._replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._assigned: AssignedSet | None = None
        self._word = AcceptedWord(around.settings.state_dir.resolve())
        self._accepted: AssignedSet | None = None
        self._refusal = ""
        self._gpus = GpuInventory(
            _simulation(around.settings),
            around.clock,
            frozenset(around.settings.ignored_xids),
            self._on_gpus_changed,
        )
        self._cpus, self._memory_bytes = 0.0, 0
        self._volumes = around.settings.offered_volumes
        self._draining = False
        self._task_ended = asyncio.Event()
        self._untidy = asyncio.Event()

    async def open(self) -> None:
        """Looks for what the node has and takes over what a former agent left running."""
        settings = self._around.settings
        self._accepted = self._word.read()
        cpus, memory_bytes = node_resources.offered(self._around.runtime.kind)
        self._cpus = settings.cpus or cpus
        self._memory_bytes = settings.memory_bytes or memory_bytes
        await self._gpus.open()
        await self._around.runtime.open()
        for directory in self._directories():
            await self._take_over(directory)

    def accept(self, offered: AssignedSet) -> bool:
        """Applies an assigned set; False if it is older than one that was accepted before.

        Before counts over restarts of the agent, too.
        """
        if not accepts(self._accepted, offered):
            self._refuse(offered)
            return False
        self._word.keep(offered)
        self._accepted, self._refusal = offered, ""
        self._apply(offered)
        self._around.changed()
        return True

    def _refuse(self, offered: AssignedSet) -> None:
        assert self._accepted is not None, "the first word is always accepted"
        refusal = (
            f"assignments of epoch {offered.epoch}, revision {offered.revision} are refused: epoch "
            f"{self._accepted.epoch}, revision {self._accepted.revision} was accepted before. If "
            f"NATS has lost its state, remove {self._word.file} and start this agent anew"
        )
        if refusal != self._refusal:
            log.warning("assignments.refused", reason=refusal)
            self._refusal = refusal
            self._around.changed()

    def _apply(self, offered: AssignedSet) -> None:
        """Starts, keeps and drains replicas as an assigned set says."""
        self._assigned = offered
        if self._draining:
            return
        running = {key: replica.leaving for key, replica in self._replicas.items()}
        actions = reconcile(offered, running)
        for replica_id in actions.drain:
            self._replicas[replica_id].leave()
        for assignment in actions.keep:
            self._replicas[assignment.replica_id].limit_attempts(assignment.request_timeout)
        for assignment in actions.start:
            self._start(assignment)
        self._untidy.set()

    async def report(self) -> NodeReport:
        """The node's complete state now."""
        settings = self._around.settings
        inventory = self._gpus.read(_holdings(self._replicas.values()), self.replica_pids())
        statuses = [replica.status() for replica in self._replicas.values()]
        for status in statuses:
            status.gpu_memory_used_bytes = inventory.used_bytes.get(status.replica_id, 0)
        return NodeReport(
            slot_count=settings.slots,
            gpus=inventory.gpus,
            gpu_message="; ".join(filter(None, (inventory.message, self._refusal))),
            replicas=statuses,
            applied_revision=self._assigned.revision if self._assigned else 0,
            draining=self._draining,
            cpus=self._cpus,
            memory_bytes=self._memory_bytes,
            custom=settings.resources,
            volumes=sorted(self._volumes),
            read_only_volumes=sorted(v.name for v in self._volumes.values() if v.read_only),
            runtime=self._around.runtime.kind,
            runtime_message=self._around.runtime.message or inventory.cannot_start,
        )

    def replica_pids(self) -> dict[str, tuple[int, ...]]:
        """Process ids of each replica's Triton on this machine, as measured last."""
        return {key: replica.process_ids for key, replica in self._replicas.items()}

    async def watch_gpus(self) -> None:
        """Reads the GPUs every second, for ever."""
        await self._gpus.run()

    def _on_gpus_changed(self) -> None:
        """Replicas on a GPU that has failed give back what they hold, and it is told at once."""
        unusable = self._gpus.unusable()
        for replica in self._replicas.values():
            replica.note_gpus(unusable)
        self._around.changed()

    async def drain(self) -> None:
        """Has all replicas finish and stop, within the time the settings give."""
        self._draining = True
        for replica in self._replicas.values():
            replica.leave(self._around.settings.drain_s)
        tasks = list(self._tasks.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._around.settings.drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        # Nobody is there to end what was being started or ended when its replica left.
        for replica in self._replicas.values():
            await self._around.runtime.remove(replica.directory)

    async def watch_tasks(self) -> None:
        """Ends with the error of a replica that failed by a defect; else never.

        While draining, replicas are left to `drain`.
        """
        while True:
            await self._task_ended.wait()
            self._task_ended.clear()
            for replica_id, task in list(self._tasks.items()):
                if task.done() and not self._draining:
                    del self._tasks[replica_id]
                    del self._replicas[replica_id]
                    task.result()
                    if self._assigned is not None:
                        self._apply(self._assigned)
                    self._around.changed()

    async def measure(self) -> None:
        """Measures every replica's memory and ends what belongs to none now and then, for ever."""
        while True:
            found = await self._around.runtime.survey(self._tritons)
            for replica_id, replica in self._replicas.items():
                replica.note_measured(found.get(replica_id, Measured()))
            await asyncio.sleep(MEASURE_INTERVAL_S)

    async def tidy(self) -> None:
        """Removes the models and logs of replicas that have gone, whenever some have, for ever.

        Beside everything else: to remove a model of some GB takes seconds.
        """
        while True:
            await self._untidy.wait()
            self._untidy.clear()
            used = {replica.assignment.model_digest for replica in self._replicas.values()}
            try:
                await self._around.models.prune(used)
                await asyncio.to_thread(self._prune_logs)
            except OSError as error:
                log.warning("agent.not_tidied", error=str(error))

    def _start(self, assignment: Assignment) -> None:
        copy = Assignment()
        copy.CopyFrom(assignment)
        replica = Replica(copy, self._around)
        replica.note_gpus(self._gpus.unusable())
        self._replicas[assignment.replica_id] = replica
        task = asyncio.create_task(replica.run(), name=assignment.replica_id)
        task.add_done_callback(lambda _: self._task_ended.set())
        self._tasks[assignment.replica_id] = task

    async def _take_over(self, directory: Path) -> None:
        """A replica of a former agent: served again if its Triton lives, else cleaned up."""
        record = directory / "assignment.bin"
        runtime = self._around.runtime
        if record.is_file() and await runtime.is_running(directory):
            self._start(Assignment.FromString(record.read_bytes()))
            return
        await runtime.remove(directory)
        record.unlink(missing_ok=True)

    def _tritons(self) -> dict[str, Triton | None]:
        return {key: replica.triton for key, replica in self._replicas.items()}

    def _directories(self) -> list[Path]:
        root = self._around.settings.state_dir.resolve() / "replicas"
        return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    def _prune_logs(self) -> None:
        """Keeps the logs of the replicas that went last."""
        gone = [path for path in self._directories() if path.name not in self._replicas]
        gone.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in gone[KEPT_LOGS:]:
            shutil.rmtree(path, ignore_errors=True)


def _simulation(settings: NodeAgentSettings) -> Simulation | None:
    if not settings.simulated_gpus:
        return None
    return Simulation(
        settings.node,
        settings.simulated_gpus,
        settings.simulated_gpu_memory_bytes,
        settings.simulated_gpu_product,
    )


def _holdings(replicas: Iterable[Replica]) -> list[Holding]:
    return [
        Holding(
            tuple(replica.assignment.gpu_uuids),
            replica.assignment.resources.gpus,
            replica.assignment.resources.gpu_memory_bytes,
            replica.ongoing_count,
        )
        for replica in replicas
    ]
