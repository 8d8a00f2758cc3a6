"""Pure: whose processes hold a GPU's memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from forebay.v1.node_pb2 import GpuProcess
from services.node_agent.gpus.reading import ProcessUse

MAX_PROCESSES = 64
"""Told of each GPU, those with most memory first."""


@dataclass(frozen=True, slots=True)
class GpuUsers:
    """The replicas by their processes.

    Attributes:
        replicas: replica by process id on this machine.
    """

    replicas: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, process_ids: Mapping[str, Iterable[int]]) -> "GpuUsers":
        """From the process ids of each replica."""
        return cls({pid: replica for replica, pids in process_ids.items() for pid in pids})

    def named(self, processes: Iterable[ProcessUse]) -> list[GpuProcess]:
        """The processes with most memory, each with its replica if it has one."""
        most = sorted(processes, key=lambda p: (-p.memory_used_bytes, p.process_id))
        return [
            GpuProcess(
                process_id=process.process_id,
                memory_used_bytes=process.memory_used_bytes,
                replica_id=self.replicas.get(process.process_id, ""),
            )
            for process in most[:MAX_PROCESSES]
        ]

    def used_bytes(self, processes: Iterable[ProcessUse]) -> dict[str, int]:
        """Memory that the processes of each replica hold; a replica that holds none is left out."""
        used: dict[str, int] = {}
        for process in processes:
            replica = self.replicas.get(process.process_id)
            if replica is not None:
                used[replica] = used.get(replica, 0) + process.memory_used_bytes
        return used
