"""The machine level: which nodes are emptied, what is missing, what may go, and who is told."""

from collections.abc import Mapping

import structlog

from forebay.v1.autoscaler_pb2 import NodeDemand
from services.autoscaler.consolidation import Consolidation
from services.autoscaler.demand import IdleNodes, node_demand
from services.autoscaler.plan import Plan
from services.autoscaler.provider import Feed
from services.autoscaler.rollout import Spec
from services.autoscaler.roster import Roster
from services.autoscaler.settings import AutoscalerSettings
from services.autoscaler.view import Presence, View
from services.runtime.clock import Clock
from services.wire.names import node_name

log = structlog.get_logger()


class Machines:
    """What is done about nodes between two looks.

    Attributes:
        demand: what machines are missing and which could go, as last found.
    """

    def __init__(self, settings: AutoscalerSettings, feed: Feed, clock: Clock) -> None:
        """Nothing is missing yet.

        Args:
            settings: how long a node must have been light or idle.
            feed: tells the node provider.
            clock: tells the time.
        """
        self._settings = settings
        self._feed = feed
        self._clock = clock
        self.demand = NodeDemand()
        self.begin_term()

    def begin_term(self) -> None:
        """Forgets what was remembered: others may have led in between."""
        settings = self._settings
        wanted = settings.consolidation
        enabled = self._feed.releases if wanted is None else wanted
        self._consolidation = Consolidation(settings.consolidation_delay_s, enabled)
        self._idle = IdleNodes(settings.node_idle_delay_s, settings.keep_nodes)
        self._settled_s = self._clock.monotonic_s() + settings.node_grace_s

    @property
    def evacuating(self) -> frozenset[str]:
        """Nodes that are being emptied."""
        return self._consolidation.evacuating

    def look(self, made: Plan, specs: Mapping[str, Spec], roster: Roster, view: View) -> None:
        """Takes note of what was planned, and tells the provider.

        Args:
            made: the plan.
            specs: what is declared.
            roster: what was assigned when the plan was made.
            view: what is seen.
        """
        now_s = self._clock.monotonic_s()
        before = self._consolidation.evacuating
        self._consolidation.look(now_s, made, specs, roster, view)
        if self._consolidation.evacuating != before:
            log.info(
                "consolidation.changed",
                evacuating=sorted(self._consolidation.evacuating),
                reason=self._consolidation.reason,
            )
        releasable = self._idle.releasable(now_s, made, roster, view)
        self.demand = node_demand(specs, made.steps, releasable, self._clock.wall_s())
        self.demand.evacuating_nodes.extend(map(node_name, sorted(self.evacuating)))
        self.demand.provider_note = self._feed.note
        if now_s < self._settled_s:
            # Nodes that are there may not have reported yet: no machine is bought for that.
            return
        reporting = frozenset(
            node for node, there in view.attendance.items() if there.presence is Presence.ACTIVE
        )
        self._feed.offer(self.demand, reporting)
