"""A node agent as metrics and the autoscaler see one, whose replicas do as the test says.

It speaks the real protocols; only Triton is missing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from forebay.v1.autoscaler_pb2 import (
    Assignment,
    WatchAssignmentsRequest,
    WatchAssignmentsResponse,
)
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.node_pb2 import Gpu, NodeRegistration, NodeReport, ReplicaStatus, ReportRequest
from forebay.v1.node_pb2_grpc import NodeServiceStub
from services.wire.channels import open_channel

REPORT_INTERVAL_S = 0.1

StateOf = Callable[[Assignment], ReplicaStatus.State]


def ready(_: Assignment) -> ReplicaStatus.State:
    """Every replica is ready at once."""
    return ReplicaStatus.STATE_READY


class Agent:
    """One node.

    Attributes:
        told: everything the autoscaler has said.
        state_of: how replicas are; may be changed at any time.
        amend: changes each report before it is sent; may be changed at any time.
        slow_to_stop: replicas that are not assigned any more go on DRAINING while this is true.
    """

    def __init__(
        self, node: str, slots: int = 4, gpus: tuple[str, ...] = (), state_of: StateOf = ready
    ) -> None:
        self.node = node
        self.told: list[WatchAssignmentsResponse] = []
        self.state_of = state_of
        self.amend: Callable[[NodeReport], None] = lambda _: None
        self.slow_to_stop = False
        self.draining = False
        self._slots = slots
        self._gpus = gpus
        self._draining: dict[str, ReplicaStatus] = {}
        self._sequence = 0

    @property
    def assignments(self) -> list[Assignment]:
        """What the node must run now."""
        return list(self.told[-1].assignments) if self.told else []

    @property
    def generations(self) -> list[int]:
        """Generations of its replicas, in order."""
        return sorted(assignment.generation for assignment in self.assignments)

    @asynccontextmanager
    async def running(self, metrics: str, autoscaler: str) -> AsyncIterator["Agent"]:
        """Reports and watches until the block ends; then the node is gone without a word."""
        tasks = [
            asyncio.ensure_future(self._again(self._report, metrics)),
            asyncio.ensure_future(self._again(self._watch, autoscaler)),
        ]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, work: Callable[[grpc.aio.Channel], object], address: str) -> None:
        async with open_channel(address) as channel:
            while True:
                try:
                    await work(channel)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(REPORT_INTERVAL_S)

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        request = WatchAssignmentsRequest(node=f"nodes/{self.node}")
        async for response in AutoscalerServiceStub(channel).WatchAssignments(request):
            before = {status.replica_id: status for status in self._statuses()}
            self.told.append(response)
            for assignment in self.assignments:
                before.pop(assignment.replica_id, None)
            self._draining.update(before)

    async def _report(self, channel: grpc.aio.Channel) -> None:
        call = NodeServiceStub(channel).Report()
        registration = NodeRegistration(
            node=f"nodes/{self.node}", instance_id=str(id(self)), agent_version="test"
        )
        await call.write(ReportRequest(registration=registration))
        while not call.done():
            await call.write(ReportRequest(report=self._state()))
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _state(self) -> NodeReport:
        self._sequence += 1
        if not self.slow_to_stop:
            self._draining.clear()
        for status in self._draining.values():
            status.state = ReplicaStatus.STATE_DRAINING
        report = NodeReport(
            sequence_number=self._sequence,
            slot_count=self._slots,
            gpus=[Gpu(uuid=uuid, memory_total_bytes=16 << 30) for uuid in self._gpus],
            replicas=[*self._statuses(), *self._draining.values()],
            applied_revision=self.told[-1].revision if self.told else 0,
            draining=self.draining,
        )
        self.amend(report)
        return report

    def _statuses(self) -> list[ReplicaStatus]:
        return [
            ReplicaStatus(
                replica_id=assignment.replica_id,
                deployment=assignment.deployment,
                generation=assignment.generation,
                gpu_uuids=assignment.gpu_uuids,
                gpus=assignment.resources.gpus,
                state=self.state_of(assignment),
                message="Triton said no",
            )
            for assignment in self.assignments
        ]
