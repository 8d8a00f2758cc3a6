"""A simulated node. Pure."""

from dataclasses import replace

from services.autoscaler.capacity import Node, Share
from services.autoscaler.roster import Assigned
from services.autoscaler.simulation.deployed import SimReplica
from services.autoscaler.view import CLOSED, Attendance, Presence


class SimNode:
    """A machine with its agent.

    Attributes:
        node: what it has.
        uuids: of its GPUs.
        present: whether it reports.
        died: whether what it ran is lost when it is away.
        silent_since_s: since when it does not report.
        told, told_revision: what it must run.
        applied_revision: what it has acted on.
        epoch: the latest term it has heard of; an older one is not listened to.
        replicas: what it runs, by id.
    """

    __slots__ = (
        "_closed",
        "applied_revision",
        "died",
        "epoch",
        "node",
        "present",
        "replicas",
        "silent_since_s",
        "told",
        "told_revision",
        "uuids",
    )

    def __init__(self, node: Node) -> None:
        self.node = node
        self.uuids = frozenset(gpu.uuid for gpu in node.gpus)
        self.present = True
        self.died = False
        self.epoch = 0
        self.silent_since_s = 0.0
        self.told: dict[str, Assigned] = {}
        self.told_revision = 0
        self.applied_revision = 0
        self.replicas: dict[str, SimReplica] = {}
        self._closed = replace(node, closed=CLOSED[Presence.OFFLINE])

    def set_fault(self, number: int, fault: str) -> str:
        """Says what is wrong with a GPU, or that nothing is if that is empty; returns its UUID."""
        gpus = list(self.node.gpus)
        gpus[number] = replace(gpus[number], fault=fault)
        self.node = replace(self.node, gpus=tuple(gpus))
        self._closed = replace(self.node, closed=CLOSED[Presence.OFFLINE])
        return gpus[number].uuid

    def fault_of(self, share: Share) -> str:
        """What is wrong with the GPUs of a share; empty if nothing is."""
        faults = (gpu.fault for gpu in self.node.gpus if gpu.uuid in share.gpu_uuids)
        return next((fault for fault in faults if fault), "")

    @property
    def name(self) -> str:
        """Its id."""
        return self.node.name

    @property
    def seen(self) -> Node:
        """What it has, as the autoscaler sees it."""
        return self.node if self.present else self._closed

    def attendance(self, now_s: float) -> Attendance:
        """How it is there."""
        if self.present:
            return Attendance(Presence.ACTIVE, 0.0, self.applied_revision)
        return Attendance(Presence.OFFLINE, now_s - self.silent_since_s, self.applied_revision)

    def where(self, share: Share) -> str:
        """Where on the node a share is, for a person."""
        numbers = [
            str(i) for i, gpu in enumerate(self.node.gpus) if gpu.uuid in set(share.gpu_uuids)
        ]
        if not numbers:
            return f" on {self.name}"
        word = "GPU" if len(numbers) == 1 else "GPUs"
        return f" on {self.name} {word} {', '.join(numbers)}"
