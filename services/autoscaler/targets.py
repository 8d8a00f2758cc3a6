"""How many replicas every deployment should have: looks, keeps targets, journals decisions.

`scaling` decides. A target is kept before anything is assigned by it, so that whoever leads next
goes on from it: a restart or a failover changes nothing by itself.
"""

from collections.abc import Callable, Mapping

import structlog

from forebay.v1.metrics_pb2 import DeploymentLoad
from forebay.v1.scaling_pb2 import ScaleState
from services.autoscaler.custom.runner import CustomPolicies
from services.autoscaler.declarations import Declaration
from services.autoscaler.journal import Journal
from services.autoscaler.observe import WAKE_HOLD_S, is_idle, signals_of
from services.autoscaler.origins import Origins
from services.autoscaler.roster import Assigned, Roster
from services.autoscaler.scaling.record import decision_of
from services.autoscaler.scaling.rules import Rule, State
from services.autoscaler.scaling.scaler import Look, Scaler
from services.autoscaler.startups import Starts, Startups
from services.autoscaler.view import ReplicaView
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvMirror

log = structlog.get_logger()

TARGET = "target."

SAY_AGAIN_AFTER_S = 5.0
"""Each other reason is a write to NATS: rules that alternate are not followed closer than this."""

_NO_STARTS = Starts()


class Targets:
    """The scalers of all deployments.

    Attributes:
        startups: how long replicas take to start.
        origins: decisions that made targets what they are.
    """

    def __init__(
        self, kept: KvMirror, journal: Journal, clock: Clock, custom: CustomPolicies
    ) -> None:
        """Knows nothing until a term begins.

        Args:
            kept: the bucket of targets.
            journal: takes the decisions.
            clock: tells the time.
            custom: runs custom policies.
        """
        self._kept = kept
        self._journal = journal
        self._clock = clock
        self._custom = custom
        self._scalers: dict[str, Scaler] = {}
        self._declared: Mapping[str, Declaration] = {}
        # What was last said of each deployment: the reason, its rule, and when.
        self._reasons: dict[str, tuple[str, Rule, float]] = {}
        self._woken: dict[str, tuple[float, int, int]] = {}
        self._unkept: set[str] = set()
        self._epoch = 0
        self._first_look = True
        self.startups = Startups()
        self.origins = Origins()

    def begin_term(self, epoch: int) -> None:
        """Forgets what was remembered: others may have led in between."""
        self._epoch = epoch
        self._scalers.clear()
        self._woken.clear()
        self._unkept.clear()
        self.origins.clear()
        self._first_look = True

    def reason(self, deployment: str) -> str:
        """Why the target is what it is."""
        said = self._reasons.get(deployment)
        return said[0] if said else ""

    def declare(self, declared: Mapping[str, Declaration], roster: Roster) -> None:
        """Takes what is declared now."""
        for gone in self._scalers.keys() - declared.keys():
            del self._scalers[gone]
            self._reasons.pop(gone, None)
            self._woken.pop(gone, None)
            self._unkept.discard(gone)
            self.origins.forget(gone)
        self._journal.counts.keep(declared.keys())
        for deployment, declaration in declared.items():
            scaler = self._scalers.get(deployment)
            if scaler is None:
                state = self._kept_state(deployment, len(roster.of(deployment)))
                self._scalers[deployment] = Scaler(declaration.rules, state, self._first_look)
            elif scaler.rules is not declaration.rules:
                scaler.declare(declaration.rules)
        self._declared = declared
        self._first_look = False

    def look(
        self,
        loads: Mapping[str, DeploymentLoad],
        seen: Mapping[str, ReplicaView] | None,
        roster: Roster,
    ) -> dict[str, int]:
        """Decides for every deployment.

        Args:
            loads: what metrics says, by id; empty if it does not answer.
            seen: replicas on nodes that report; None if metrics does not answer.
            roster: what is assigned.

        Returns:
            Targets by id.
        """
        now_s = self._clock.monotonic_s()
        wall_s = self._clock.wall_s()
        assigned = roster.by_deployment
        targets: dict[str, int] = {}
        for deployment, scaler in self._scalers.items():
            load = loads.get(deployment)
            if load is not None and is_idle(load) and scaler.settled(wall_s):
                # Nothing waits or runs, and nothing is about to change: most of a large mesh.
                targets[deployment] = scaler.target or 0
                continue
            own = assigned.get(deployment)
            targets[deployment] = self._look_at(now_s, deployment, scaler, load, own, seen)
        return targets

    def is_at_zero(self, deployment: str) -> bool:
        """Whether a deployment is known here and has no replica to come."""
        scaler = self._scalers.get(deployment)
        return scaler is not None and not scaler.target

    def wake(self, deployment: str, queued: int, ongoing: int) -> int | None:
        """Decides at once: somebody says that a request or a task waits for a replica.

        Args:
            deployment: its id.
            queued: requests and tasks stored and not delivered, as asked of the consumer just now.
            ongoing: requests and tasks delivered and not settled.

        Returns:
            The target; None if the deployment is not known here.
        """
        scaler = self._scalers.get(deployment)
        if scaler is None:
            return None
        now_s = self._clock.monotonic_s()
        queued = max(1, queued)
        self._woken[deployment] = (now_s, queued, ongoing)
        if scaler.target:
            return scaler.target
        load = DeploymentLoad(queued_count=queued, ongoing_count=ongoing)
        load.redelivered_count = 0
        return self._look_at(now_s, deployment, scaler, load, None, {})

    def protected(
        self, targets: Mapping[str, int], roster: Roster, seen: Mapping[str, ReplicaView]
    ) -> frozenset[str]:
        """Ids of replicas that must have their chance before they may be taken away."""
        now_s = self._clock.monotonic_s()
        return frozenset(
            replica_id
            for deployment, own in roster.by_deployment.items()
            if len(own) > targets.get(deployment, 0)
            for replica_id in own
            if self.startups.has_its_chance(now_s, deployment, replica_id, seen.get(replica_id))
        )

    async def keep(self, fence: Callable[[], None]) -> None:
        """Writes the targets that changed.

        Args:
            fence: called before each write; raises if this process does not lead any more.

        Raises:
            nats.errors.Error: if NATS cannot be reached, or someone else wrote; they are written
                the next time.
        """
        for deployment in sorted(self._unkept):
            target = self._scalers[deployment].target
            if target is not None:
                entry = self._kept.get(TARGET + deployment)
                value = ScaleState(target_replica_count=target).SerializeToString()
                if entry is None or entry.value != value:
                    fence()
                    revision = entry.revision if entry else 0
                    await self._kept.put(TARGET + deployment, value, revision)
            # A wake may have decided anew while this was written.
            if self._scalers[deployment].target == target:
                self._unkept.discard(deployment)
        for gone in self._kept.entries(TARGET).keys() - self._declared.keys():
            fence()
            await self._kept.delete(TARGET + gone)

    def _look_at(
        self,
        now_s: float,
        deployment: str,
        scaler: Scaler,
        load: DeploymentLoad | None,
        own: Mapping[str, Assigned] | None,
        seen: Mapping[str, ReplicaView] | None,
    ) -> int:
        starts = _NO_STARTS
        custom: tuple[float | None, str] = (None, "")
        if own and seen is not None:
            starts = self.startups.look(now_s, deployment, own, seen)
        rules = scaler.rules
        if rules.custom:
            custom = self._custom.answer(deployment)
        woken = self._woken_load(now_s, deployment)
        window_min = scaler.window_min(self._clock.wall_s())
        signals = signals_of(load, starts, len(own or ()), woken, custom, window_min)
        look = scaler.look(now_s, signals)
        if rules.custom:
            self._custom.ask(deployment, rules.custom, look.signals)
        if look.noteworthy:
            self._note(now_s, deployment, scaler, look)
        elif self._is_outdated(now_s, deployment, look):
            self._say(now_s, deployment, look)
        target = look.outcome.state.target
        if look.before is None or look.before.target != target:
            self._unkept.add(deployment)
        return target

    def _is_outdated(self, now_s: float, deployment: str, look: Look) -> bool:
        """Whether what was said last is not what binds any more, and was said a while ago."""
        said = self._reasons.get(deployment)
        if said is None:
            return True
        return said[1] is not look.outcome.rule and now_s - said[2] >= SAY_AGAIN_AFTER_S

    def _say(self, now_s: float, deployment: str, look: Look) -> None:
        self._reasons[deployment] = (look.outcome.reason, look.outcome.rule, now_s)

    def _woken_load(self, now_s: float, deployment: str) -> tuple[int, int] | None:
        """What waited and ran at the last wake, as long as metrics may not have seen it yet."""
        woken = self._woken.get(deployment)
        if woken is None:
            return None
        woken_s, queued, ongoing = woken
        if now_s - woken_s <= WAKE_HOLD_S:
            return queued, ongoing
        del self._woken[deployment]
        return None

    def _note(self, now_s: float, deployment: str, scaler: Scaler, look: Look) -> None:
        declaration = self._declared[deployment].deployment
        outcome = look.outcome
        decision = decision_of(
            deployment,
            0,
            look.signals,
            declaration.scaling if declaration.HasField("scaling") else None,
            declaration.max_ongoing_requests,
            scaler.rules,
            look.before,
            outcome,
            now_s,
            self._clock.wall_s(),
            self._epoch,
        )
        before = look.before.target if look.before is not None else None
        target = outcome.state.target
        origin = self.origins.decided(deployment, before, target, outcome.reason)
        self._journal.append(deployment, decision, origin.named)
        self._say(now_s, deployment, look)
        log.info(
            "scale.decided",
            deployment=deployment,
            before=outcome.before,
            target=outcome.target,
            rule=outcome.rule.name.lower(),
            applied=outcome.applied,
            reason=outcome.reason,
        )

    def _kept_state(self, deployment: str, assigned: int) -> State | None:
        """The target as it is kept; what is assigned if none is; None for a new deployment."""
        entry = self._kept.get(TARGET + deployment)
        if entry is not None:
            return State(ScaleState.FromString(entry.value).target_replica_count)
        return State(assigned) if assigned else None
