"""The shell round targets and plan: wakes on every change, writes what changes, decides nothing.

Without a fresh view of the mesh it changes nothing: an autoscaler that has just started, or whose
metrics is away, neither moves nor removes a replica.
"""

import asyncio
import secrets
from collections.abc import Mapping

import nats.errors
import nats.js.errors
import structlog

from forebay.v1.autoscaler_pb2 import AssignmentSet
from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from forebay.v1.metrics_pb2 import Snapshot
from services.autoscaler import status
from services.autoscaler.assignments import assigned_of, next_assignments
from services.autoscaler.declarations import Declaration, Declarations
from services.autoscaler.gpu_use import GpuUse
from services.autoscaler.leadership import Leadership, NotLeadingError
from services.autoscaler.load import LoadWatch
from services.autoscaler.machines import Machines
from services.autoscaler.observe import loads_of
from services.autoscaler.plan import NodeChange, Plan, plan
from services.autoscaler.presence import Absences, Leaving
from services.autoscaler.rollout import Spec
from services.autoscaler.roster import Roster
from services.autoscaler.targets import Targets
from services.autoscaler.view import View, view_of
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
    """Keeps targets, assignments and statuses what they should be."""

    def __init__(
        self,
        link: NatsLink,
        deployments: KvMirror,
        assignments: KvMirror,
        leadership: Leadership,
        targets: Targets,
        machines: Machines,
        load: LoadWatch,
        clock: Clock,
        node_grace_s: float,
    ) -> None:
        self._link = link
        self._deployments = deployments
        self._assignments = assignments
        self._leadership = leadership
        self._targets = targets
        self._machines = machines
        self._load = load
        self._clock = clock
        self._node_grace_s = node_grace_s
        self._term = 0
        self._turn = 0
        self._absences = Absences(node_grace_s)
        self._leaving = Leaving()
        self._gpu_use = GpuUse()
        self._declarations = Declarations()
        self._roster = Roster()
        self._based_on: dict[str, int] = {}
        self._view: tuple[Snapshot, View] | None = None

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
        self._begin_term()
        self._turn += 1
        declared = self._declarations.update(self._deployments.entries(SPEC))
        self._read_assignments()
        self._targets.declare(declared, self._roster)
        snapshot = self._load.fresh()
        if snapshot is None:
            self._targets.look({}, None, self._roster)
            await self._write_unknown(declared)
            return
        view = self._view_of(snapshot)
        targets = self._targets.look(loads_of(snapshot), view.replicas, self._roster)
        # Before anything is assigned by them: whoever leads next goes on from them.
        await self._targets.keep(self._fence)
        specs = {deployment: declaration.spec for deployment, declaration in declared.items()}
        made = self._plan(specs, targets, view)
        self._machines.look(made, specs, self._roster, view)
        _log_steps(made)
        protos = {deployment: one.deployment for deployment, one in declared.items()}
        new = {owner for change in made.changes.values() for owner, _ in change.create}
        await self._targets.origins.wait_named(new)
        for node, change in made.changes.items():
            await self._write_node(node, change, protos)
        await self._write_statuses(declared, made, view)
        self._targets.startups.forget(self._roster.by_id, declared, view.attendance.keys())

    def _begin_term(self) -> None:
        epoch = self._leadership.epoch
        if epoch != self._term:
            # What was absent in a former term may have been there while others led.
            self._absences = Absences(self._node_grace_s)
            self._targets.begin_term(epoch)
            self._machines.begin_term()
        self._term = epoch

    def _fence(self) -> None:
        self._leadership.fence(self._term)

    def _read_assignments(self) -> None:
        """Brings the roster up to date with the sets that changed."""
        entries = self._assignments.entries(NODE)
        for node in self._based_on.keys() - entries.keys():
            del self._based_on[node]
            self._roster.drop(node)
        for node, entry in entries.items():
            if self._based_on.get(node) != entry.revision:
                self._roster.put(node, assigned_of(node, AssignmentSet.FromString(entry.value)))
                self._based_on[node] = entry.revision

    def _view_of(self, snapshot: Snapshot) -> View:
        if self._view is None or self._view[0] is not snapshot:
            self._view = snapshot, view_of(snapshot)
        return self._view[1]

    def _plan(self, specs: Mapping[str, Spec], targets: Mapping[str, int], view: View) -> Plan:
        now_s = self._clock.monotonic_s()
        return plan(
            specs,
            targets,
            self._roster,
            view,
            _new_id,
            gone=self._absences.gone(now_s, view, self._roster.nodes),
            evacuating=self._machines.evacuating,
            leaving=self._leaving.current(view),
            protected=self._targets.protected(targets, self._roster, view.replicas),
            turn=self._turn,
        )

    async def _write_node(
        self, node: str, change: NodeChange, deployments: Mapping[str, Deployment]
    ) -> None:
        entry = self._assignments.get(NODE + node)
        before = AssignmentSet.FromString(entry.value) if entry else None
        revision = (before.revision if before else 0) + 1
        message = AssignmentSet(
            assignments=next_assignments(before, change, deployments, self._targets.origins.of),
            revision=revision,
            epoch=self._term,
        )
        for replica_id in change.remove:
            going = self._roster.by_id[replica_id]
            self._leaving.add(replica_id, going.deployment, going.share, revision)
        self._fence()
        # On what was looked at, not on what is there by now: a former leader's last write may have
        # come in between.
        await self._assignments.put(
            NODE + node, message.SerializeToString(), self._based_on.get(node, 0)
        )
        log.info(
            "assignments.written",
            node=node,
            revision=revision,
            replicas=[assignment.replica_id for assignment in message.assignments],
        )

    async def _write_statuses(
        self, declared: Mapping[str, Declaration], made: Plan, view: View
    ) -> None:
        used_bytes = self._gpu_use.look(view.replicas)
        for deployment, declaration in declared.items():
            described = status.describe(
                declaration.spec,
                made.steps[deployment],
                view,
                self._targets.reason(deployment),
                self._targets.startups.startup_s(deployment),
                used_bytes,
                made.stranded.get(deployment, ()),
            )
            await self._write_status(deployment, declaration.revision, described)
        for deployment in self._deployments.entries(STATUS).keys() - declared.keys():
            self._fence()
            await self._deployments.delete(STATUS + deployment)

    async def _write_unknown(self, declared: Mapping[str, Declaration]) -> None:
        for deployment, declaration in declared.items():
            entry = self._deployments.get(STATUS + deployment)
            described = DeploymentStatus.FromString(entry.value if entry else b"")
            described.message = status.LOAD_UNKNOWN
            described.decision_reason = self._targets.reason(deployment)
            await self._write_status(deployment, declaration.revision, described)

    async def _write_status(
        self, deployment: str, looked_at: int, described: DeploymentStatus
    ) -> None:
        """Writes a status that differs from what is kept."""
        spec = self._deployments.get(SPEC + deployment)
        if spec is None or spec.revision != looked_at:
            # Declared anew while we looked: the next look is already due.
            return
        entry = self._deployments.get(STATUS + deployment)
        described.observed_revision = looked_at
        value = described.SerializeToString(deterministic=True)
        if entry is None or entry.value != value:
            self._fence()
            await self._deployments.put(
                STATUS + deployment,
                value,
                entry.revision if entry else 0,
                given=(SPEC + deployment, spec.revision),
            )


def _log_steps(made: Plan) -> None:
    for deployment, step in made.steps.items():
        for replica, reason in step.remove:
            log.info(
                "replica.removed",
                deployment=deployment,
                replica=replica.replica_id,
                node=replica.node,
                reason=reason,
            )
        for replica in step.create:
            log.info(
                "replica.placed",
                deployment=deployment,
                replica=replica.replica_id,
                node=replica.node,
                gpus=list(replica.share.gpu_uuids),
                generation=replica.generation,
            )


def _new_id(deployment_id: str) -> str:
    return f"{deployment_id}-{secrets.token_hex(4)}"
