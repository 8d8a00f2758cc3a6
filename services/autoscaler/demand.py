"""What machines are missing and which could go. Pure: time is an argument."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forebay.v1.autoscaler_pb2 import NodeDemand
from services.autoscaler.assignments import resources_of
from services.autoscaler.capacity import Demand
from services.autoscaler.plan import Plan
from services.autoscaler.rollout import Spec, Step
from services.autoscaler.roster import Roster
from services.autoscaler.view import Presence, View
from services.wire import names

MAX_DEPLOYMENTS_NAMED = 20


class IdleNodes:
    """Since when nodes have been idle: nothing assigned, nothing running, nothing leaving."""

    def __init__(self, delay_s: float, keep_nodes: int) -> None:
        """No node is idle yet.

        Args:
            delay_s: how long a node must have been idle to be released.
            keep_nodes: how many active nodes to keep at least.
        """
        self._delay_s = delay_s
        self._keep_nodes = keep_nodes
        self._idle_since_s: dict[str, float] = {}

    def releasable(self, now_s: float, made: Plan, roster: Roster, view: View) -> list[str]:
        """Ids of the nodes that may go, by name; of more than may go those idle the longest.

        Args:
            now_s: seconds on a clock that never goes back.
            made: the plan of this look.
            roster: what was assigned when the plan was made.
            view: what is seen.
        """
        active = {n for n, there in view.attendance.items() if there.presence is Presence.ACTIVE}
        # A node that missed a report is as idle as it was.
        loads = made.capacity.loads.items()
        idle = [node for node, load in loads if load.empty and not roster.on(node)]
        self._idle_since_s = {node: self._idle_since_s.get(node, now_s) for node in idle}
        since_s = self._idle_since_s
        ripe = sorted(
            (n for n in idle if n in active and now_s - since_s[n] >= self._delay_s),
            key=lambda node: (since_s[node], node),
        )
        return sorted(ripe[: max(0, len(active) - self._keep_nodes)])


def node_demand(
    specs: Mapping[str, Spec],
    steps: Mapping[str, Step],
    releasable: Sequence[str],
    sample_time_s: float,
) -> NodeDemand:
    """What a node provider should know.

    Args:
        specs: what is declared, by deployment.
        steps: what was planned, by deployment.
        releasable: ids of nodes that may go.
        sample_time_s: when that was found, in seconds since the epoch.
    """
    shapes: dict[Demand, NodeDemand.Shape] = {}
    for deployment, step in steps.items():
        if not step.short or deployment not in specs:
            continue
        # By resources alone: whoever adds machines knows nothing of volumes.
        demand = replace(specs[deployment].demand, volumes=())
        shape = shapes.get(demand)
        if shape is None:
            shape = shapes[demand] = NodeDemand.Shape(resources=resources_of(demand))
        shape.replica_count += step.short
        if len(shape.deployments) < MAX_DEPLOYMENTS_NAMED:
            shape.deployments.append(names.deployment_name(deployment))
    made = NodeDemand(
        unplaced=shapes.values(), releasable_nodes=[names.node_name(node) for node in releasable]
    )
    made.sample_time.FromNanoseconds(int(sample_time_s * 1e9))
    return made
