"""Which node to empty, so that it can be released. Pure: time is an argument.

At most one at a time, and only while nothing else is going on. A node qualifies when at most half
of its most used resource has been held for a while, all of its replicas are READY and fit on nodes
that are at least as full. With each node that was emptied one node fewer has replicas, so this ends
and nothing goes to and fro. Replicas of deployments that spread stay where they are.
"""

from collections.abc import Mapping

from services.autoscaler.capacity import Capacity, Share
from services.autoscaler.placement import Strategy, pick
from services.autoscaler.plan import Plan
from services.autoscaler.rollout import Replica, Spec
from services.autoscaler.roster import Roster
from services.autoscaler.view import Presence, State, View

MOST_USED_RATIO = 0.5
# To try a node costs a placement for each of its replicas: 8 of 20 replicas are some 25 ms.
MAX_TRIED = 8
TRY_INTERVAL_S = 1.0

_NOBODY: frozenset[str] = frozenset()


class Consolidation:
    """Remembers which nodes are lightly used since when, and which one is being emptied.

    Attributes:
        enabled: whether nodes are emptied at all; may be changed at any time.
        reason: why the last change of `evacuating` was made, for the log.
    """

    def __init__(self, delay_s: float, enabled: bool) -> None:
        """Nothing is being emptied.

        Args:
            delay_s: how long a node must have been lightly used.
            enabled: whether nodes are emptied at all.
        """
        self.enabled = enabled
        self.reason = ""
        self._delay_s = delay_s
        self._light_since_s: dict[str, float] = {}
        self._node = ""
        self._turn = 0
        self._tried_s: float | None = None

    @property
    def evacuating(self) -> frozenset[str]:
        """The node that is being emptied, for the next plan."""
        return frozenset((self._node,)) if self._node else _NOBODY

    def look(
        self, now_s: float, made: Plan, specs: Mapping[str, Spec], roster: Roster, view: View
    ) -> None:
        """Begins, goes on or ends emptying a node.

        Args:
            now_s: seconds on a clock that never goes back.
            made: the plan of this look. Its capacity is as it was when this returns.
            specs: what is declared, by deployment.
            roster: what was assigned when the plan was made.
            view: what is seen.
        """
        if not self.enabled:
            self._end("it is switched off")
            return
        light = [node for node in view.attendance if _is_light(node, made.capacity, roster, view)]
        self._light_since_s = {node: self._light_since_s.get(node, now_s) for node in light}
        if self._node:
            self._go_on(made, roster, view)
        elif made.settled and (self._tried_s is None or now_s - self._tried_s >= TRY_INTERVAL_S):
            self._tried_s = now_s
            since_s = self._light_since_s
            ripe = [node for node in light if now_s - since_s[node] >= self._delay_s]
            self._begin(ripe, made, specs, roster)

    def _go_on(self, made: Plan, roster: Roster, view: View) -> None:
        node = self._node
        there = view.attendance.get(node)
        if there is None or there.presence is not Presence.ACTIVE:
            self._end(f"node {node} is not active any more")
        elif not roster.on(node):
            self._end(f"node {node} is empty")
        elif any(step.unplaced for step in made.steps.values()):
            self._end("replicas have no place")
        else:
            owners = {assigned.deployment for assigned in roster.on(node).values()}
            # Otherwise one that cannot start elsewhere would keep the node closed for ever.
            if any(
                r.state is State.FAILED
                for owner in owners
                if owner in made.steps
                for r in made.steps[owner].keep
            ):
                self._end("a replica failed to start elsewhere")

    def _begin(
        self, ripe: list[str], made: Plan, specs: Mapping[str, Spec], roster: Roster
    ) -> None:
        if not ripe:
            return
        capacity = made.capacity
        ripe.sort(key=lambda node: (capacity.fullness(node), node))
        # Those that could not be emptied last time do not keep others from being looked at.
        start = self._turn % len(ripe) if len(ripe) > MAX_TRIED else 0
        self._turn += MAX_TRIED
        for node in (ripe[start:] + ripe[:start])[:MAX_TRIED]:
            if _may_move(node, made, specs, roster) and _fits_elsewhere(node, capacity, roster):
                self._node = node
                self.reason = f"the replicas of node {node} fit on fuller nodes"
                return

    def _end(self, reason: str) -> None:
        if self._node:
            self.reason = reason
            self._node = ""
            # What was called off is not begun again at once.
            self._light_since_s = {}


def _is_light(node: str, capacity: Capacity, roster: Roster, view: View) -> bool:
    load = capacity.loads[node]
    return (
        view.attendance[node].presence is Presence.ACTIVE
        and bool(roster.on(node))
        and load.most_used_ratio <= MOST_USED_RATIO
    )


def _may_move(node: str, made: Plan, specs: Mapping[str, Spec], roster: Roster) -> bool:
    """Whether all replicas of a node are READY and none belongs to a deployment that spreads."""
    states: dict[str, Replica] = {}
    for owner in {assigned.deployment for assigned in roster.on(node).values()}:
        if owner not in specs or specs[owner].strategy is Strategy.SPREAD:
            return False
        states.update((r.replica_id, r) for r in made.steps[owner].keep)
    return all(
        replica_id in states and states[replica_id].state is State.READY
        for replica_id in roster.on(node)
    )


def _fits_elsewhere(node: str, capacity: Capacity, roster: Roster) -> bool:
    """Whether all replicas of a node fit on open nodes that are at least as full."""
    fullness = capacity.fullness(node)
    taken: list[Share] = []
    capacity.close(node, "it is being emptied")
    # The largest first: what is left over takes the small ones.
    for assigned in sorted(roster.on(node).values(), key=lambda a: -a.share.demand.gpus):
        demand = assigned.share.demand
        found = pick(demand, capacity, least_fullness=fullness)
        if found is None:
            break
        taken.append(Share(found.node, found.gpu_uuids, demand))
        capacity.take(taken[-1])
    for share in taken:
        capacity.release(share)
    capacity.reopen(node)
    return len(taken) == len(roster.on(node))
