"""The shell round the plan: wakes on every change, writes what changes, never decides itself.

Without a fresh view of the mesh it changes nothing: an autoscaler that has just started, or whose
metrics is away, neither moves nor removes a replica.
"""

import asyncio
import secrets
from collections.abc import Mapping

import nats.errors
import nats.js.errors
import structlog

from forebay.v1.autoscaler_pb2 import Assignment, AssignmentSet
from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from forebay.v1.metrics_pb2 import Snapshot
from services.autoscaler import status
from services.autoscaler.leadership import Leadership, NotLeadingError
from services.autoscaler.load import LoadWatch
from services.autoscaler.plan import Plan, plan, reported
from services.autoscaler.presence import Absences, Leaving
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

TICK_S = 1.0
RETRY_S = 0.25

SPEC = "spec."
STATUS = "status."
NODE = "node."


class Loop:
    """Keeps assignments and statuses what they should be."""

    def __init__(
        self,
        link: NatsLink,
        deployments: KvMirror,
        assignments: KvMirror,
        leadership: Leadership,
        load: LoadWatch,
        clock: Clock,
        node_grace_s: float,
    ) -> None:
        self._link = link
        self._deployments = deployments
        self._assignments = assignments
        self._leadership = leadership
        self._term = 0
        self._load = load
        self._clock = clock
        self._node_grace_s = node_grace_s
        self._absences = Absences(node_grace_s)
        self._leaving = Leaving()
        self._looked_at: dict[str, int] = {}
        self._based_on: dict[str, int] = {}

    async def run(self, changed: asyncio.Event) -> None:
        """Reconciles whenever `changed` is set, and every TICK_S, for ever; only while it leads."""
        with (
            self._deployments.changes(changed),
            self._assignments.changes(changed),
            self._leadership.changes(changed),
        ):
            while True:
                try:
                    async with asyncio.timeout(TICK_S):
                        await changed.wait()
                except TimeoutError:
                    log.debug("loop.tick")
                changed.clear()
                if not self._link.connected or not self._leadership.leading:
                    continue
                try:
                    await self.reconcile()
                except nats.js.errors.KeyWrongLastSequenceError:
                    # Someone wrote in between; what they wrote is on its way to us.
                    log.info("loop.lost_a_write")
                    await asyncio.sleep(RETRY_S)
                except NotLeadingError as error:
                    log.info("loop.not_leading", error=str(error))
                except (nats.errors.Error, TimeoutError) as error:
                    log.warning("loop.write_failed", error=str(error) or type(error).__name__)
                    await asyncio.sleep(RETRY_S)

    async def reconcile(self) -> None:
        """Looks once and writes what changes.

        Raises:
            nats.errors.Error: if something could not be written; the next look tries again.
            NotLeadingError: if the term in which it looked ended before all was written.
        """
        epoch = self._leadership.epoch
        if epoch != self._term:
            # What was absent in a former term may have been there while others led.
            self._absences = Absences(self._node_grace_s)
        self._term = epoch
        specs = self._specs()
        entries = self._assignments.entries(NODE)
        self._based_on = {node: entry.revision for node, entry in entries.items()}
        sets = {node: AssignmentSet.FromString(entry.value) for node, entry in entries.items()}
        snapshot = self._load.fresh()
        if snapshot is None:
            await self._write_unknown(specs)
            return
        gone = self._absences.gone(self._clock.monotonic_s(), snapshot, sets)
        leaving = self._leaving.current(snapshot)
        next_plan = plan(specs, sets, snapshot, gone, leaving, _new_id)
        self._log_steps(next_plan)
        for node, assignments in next_plan.assignments.items():
            await self._write_node(node, sets.get(node), assignments)
        await self._write_statuses(specs, next_plan, snapshot)

    def _specs(self) -> dict[str, Deployment]:
        entries = self._deployments.entries(SPEC)
        self._looked_at = {name: entry.revision for name, entry in entries.items()}
        return {name: Deployment.FromString(entry.value) for name, entry in entries.items()}

    async def _write_node(
        self, node: str, before: AssignmentSet | None, assignments: list[Assignment]
    ) -> None:
        if before is not None and list(before.assignments) == assignments:
            return
        if before is None and not assignments:
            return
        revision = (before.revision if before else 0) + 1
        message = AssignmentSet(assignments=assignments, revision=revision, epoch=self._term)
        kept = {assignment.replica_id for assignment in assignments}
        for old in before.assignments if before else ():
            if old.replica_id not in kept:
                self._leaving.add_assignment(node, old, revision)
        self._leadership.fence(self._term)
        # On what was looked at, not on what is there by now: a former leader's last write may have
        # come in between.
        await self._assignments.put(
            NODE + node, message.SerializeToString(), self._based_on.get(node, 0)
        )
        log.info("assignments.written", node=node, revision=revision, replicas=sorted(kept))

    async def _write_statuses(
        self, specs: Mapping[str, Deployment], next_plan: Plan, snapshot: Snapshot
    ) -> None:
        seen = reported(snapshot)
        for deployment_id, deployment in specs.items():
            step = next_plan.steps[deployment_id]
            described = status.describe(deployment, step, seen, len(snapshot.nodes))
            await self._write_status(deployment_id, described)
        for deployment_id in self._deployments.entries(STATUS).keys() - specs.keys():
            self._leadership.fence(self._term)
            await self._deployments.delete(STATUS + deployment_id)

    async def _write_unknown(self, specs: Mapping[str, Deployment]) -> None:
        for deployment_id in specs:
            entry = self._deployments.get(STATUS + deployment_id)
            described = DeploymentStatus.FromString(entry.value if entry else b"")
            described.message = status.LOAD_UNKNOWN
            await self._write_status(deployment_id, described)

    async def _write_status(self, deployment_id: str, described: DeploymentStatus) -> None:
        """Writes a status that differs, or that is older than what it speaks of."""
        spec = self._deployments.get(SPEC + deployment_id)
        if spec is None or spec.revision != self._looked_at.get(deployment_id):
            # Declared anew while we looked: the next look is already due.
            return
        entry = self._deployments.get(STATUS + deployment_id)
        value = described.SerializeToString(deterministic=True)
        if entry is None or entry.value != value or entry.revision < spec.revision:
            self._leadership.fence(self._term)
            await self._deployments.put(
                STATUS + deployment_id,
                value,
                entry.revision if entry else 0,
                given=(SPEC + deployment_id, spec.revision),
            )

    def _log_steps(self, next_plan: Plan) -> None:
        for deployment_id, step in next_plan.steps.items():
            for replica, reason in step.remove:
                log.info(
                    "replica.removed",
                    deployment=deployment_id,
                    replica=replica.replica_id,
                    node=replica.node,
                    reason=reason,
                )
            for replica in step.create:
                log.info(
                    "replica.placed",
                    deployment=deployment_id,
                    replica=replica.replica_id,
                    node=replica.node,
                    gpus=list(replica.share.gpu_uuids),
                    generation=replica.generation,
                )


def _new_id(deployment_id: str) -> str:
    return f"{deployment_id}-{secrets.token_hex(4)}"
