"""The node agent's loop: assignments in, replicas started, kept or drained, state reported."""

import asyncio
import shutil
from pathlib import Path

import structlog

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.node_pb2 import NodeReport
from services.node_agent.inventory import GpuInventory
from services.node_agent.reconcile import AssignedSet, accepts, reconcile
from services.node_agent.replica import Replica, Surroundings
from services.node_agent.triton_process import TritonProcess, remove_shared_memory

log = structlog.get_logger()

KEPT_LOGS = 20

MEASURE_EVERY = 5
"""Reports between two measurements of memory, each of which walks the process table."""


class Agent:
    """All replicas of this node."""

    def __init__(self, around: Surroundings) -> None:
        """No replicas yet."""
        self._around = around
        self._replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._assigned: AssignedSet | None = None
        self._gpus = GpuInventory()
        self._draining = False
        self._reports = 0

    async def open(self) -> None:
        """Looks for GPUs and takes over what a former agent left running."""
        await self._gpus.open()
        for directory in self._directories():
            await self._take_over(directory)

    def apply(self, offered: AssignedSet) -> None:
        """Starts, keeps and drains replicas as an assigned set says; refuses an older one."""
        if not accepts(self._assigned, offered):
            log.warning("assignments.refused", epoch=offered.epoch, revision=offered.revision)
            return
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
        self._around.models.prune({r.assignment.model_digest for r in self._replicas.values()})
        self._prune_logs()

    async def report(self) -> NodeReport:
        """The node's complete state now."""
        inventory = await self._gpus.read()
        self._reports += 1
        if self._reports % MEASURE_EVERY == 1:
            for replica in list(self._replicas.values()):
                await replica.measure()
        return NodeReport(
            slot_count=self._around.settings.slots,
            gpus=inventory.gpus,
            gpu_message=inventory.message,
            replicas=[replica.status() for replica in self._replicas.values()],
            applied_revision=self._assigned.revision if self._assigned else 0,
            draining=self._draining,
        )

    async def drain(self) -> None:
        """Has all replicas finish and stop, within the time the settings give."""
        self._draining = True
        for replica in self._replicas.values():
            replica.leave()
        tasks = list(self._tasks.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._around.settings.drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def watch_tasks(self) -> None:
        """Ends with the error of a replica that failed by a defect; else never.

        While draining, replicas are left to `drain`.
        """
        while True:
            for replica_id, task in list(self._tasks.items()):
                if task.done() and not self._draining:
                    del self._tasks[replica_id]
                    del self._replicas[replica_id]
                    task.result()
                    if self._assigned is not None:
                        self.apply(self._assigned)
            await asyncio.sleep(0.1)

    def _start(self, assignment: Assignment) -> None:
        copy = Assignment()
        copy.CopyFrom(assignment)
        replica = Replica(copy, self._around)
        self._replicas[assignment.replica_id] = replica
        self._tasks[assignment.replica_id] = asyncio.create_task(
            replica.run(), name=assignment.replica_id
        )

    async def _take_over(self, directory: Path) -> None:
        """A replica of a former agent: served again if its Triton lives, else cleaned up."""
        process = TritonProcess.adopt(directory)
        record = directory / "assignment.bin"
        if process is not None and record.is_file():
            self._start(Assignment.FromString(record.read_bytes()))
            return
        if process is not None:
            log.info("orphan.stopped", replica=directory.name, pid=process.record.pid)
            await process.stop(graceful=False)
        (directory / "process.json").unlink(missing_ok=True)
        record.unlink(missing_ok=True)
        remove_shared_memory(directory.name)

    def _directories(self) -> list[Path]:
        root = self._around.settings.state_dir.resolve() / "replicas"
        return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    def _prune_logs(self) -> None:
        """Keeps the logs of the replicas that went last."""
        gone = [path for path in self._directories() if path.name not in self._replicas]
        gone.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in gone[KEPT_LOGS:]:
            shutil.rmtree(path, ignore_errors=True)
