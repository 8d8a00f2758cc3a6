"""A mesh in memory: what is planned comes true when the test says so."""

from collections.abc import Mapping
from itertools import count

from services.autoscaler.capacity import Demand, Node, Share
from services.autoscaler.placement import Strategy
from services.autoscaler.plan import Plan, plan
from services.autoscaler.rollout import Spec
from services.autoscaler.roster import Assigned, Roster
from services.autoscaler.view import Attendance, Presence, ReplicaView, State, View


class SmallMesh:
    """Nodes, deployments, and replicas that do as the test says.

    Attributes:
        states: by replica id; READY where nothing is said of an assigned one.
        ongoing: requests by replica id.
        drains: replicas that were taken and still run, with what they hold.
        slow_to_stop: whether those that are taken go on draining until `stop_all`.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.roster = Roster()
        self.specs: dict[str, Spec] = {}
        self.targets: dict[str, int] = {}
        self.states: dict[str, State] = {}
        self.ongoing: dict[str, int] = {}
        self.drains: dict[str, tuple[str, Share]] = {}
        self.slow_to_stop = False
        self._numbers = count(1)

    def declare(
        self,
        name: str,
        target: int,
        demand: Demand,
        strategy: Strategy = Strategy.COMPACT,
        generation: int = 1,
    ) -> None:
        self.specs[name] = Spec(name, generation, demand, strategy)
        self.targets[name] = target

    def assign(self, name: str, node: str, gpu_uuids: tuple[str, ...] = ()) -> None:
        spec = self.specs[name]
        made = Assigned(
            f"{name}-{node}", name, spec.generation, Share(node, gpu_uuids, spec.demand)
        )
        self.roster.put(node, [*self.roster.on(node).values(), made])

    def view(self) -> View:
        seen = {
            replica_id: ReplicaView(
                r.share.node,
                r.deployment,
                r.generation,
                self.states.get(replica_id, State.READY),
                self.ongoing.get(replica_id, 0),
            )
            for replica_id, r in self.roster.by_id.items()
        }
        for replica_id, (owner, share) in self.drains.items():
            seen[replica_id] = ReplicaView(
                share.node,
                owner,
                1,
                State.DRAINING,
                gpu_uuids=share.gpu_uuids,
                gpus=share.demand.gpus,
            )
        there = {
            node.name: Attendance(Presence.OFFLINE if node.closed else Presence.ACTIVE)
            for node in self.nodes
        }
        return View(tuple(self.nodes), there, seen, {})

    def plan(self, **more: object) -> Plan:
        leaving: Mapping[str, tuple[str, Share]] = self.drains
        return plan(
            self.specs,
            self.targets,
            self.roster,
            self.view(),
            lambda name: f"{name}-{next(self._numbers)}",
            leaving=leaving,
            **more,
        )

    def apply(self, made: Plan) -> None:
        """Assigns what is planned; what is new is STARTING."""
        for node, change in made.changes.items():
            kept = dict(self.roster.on(node))
            for replica_id in change.remove:
                going = kept.pop(replica_id)
                if self.slow_to_stop:
                    self.drains[replica_id] = (going.deployment, going.share)
            for owner, r in change.create:
                kept[r.replica_id] = Assigned(r.replica_id, owner, r.generation, r.share)
                self.states[r.replica_id] = State.STARTING
            self.roster.put(node, kept.values())

    def all_ready(self) -> None:
        self.states = {}

    def stop_all(self) -> None:
        self.drains = {}
