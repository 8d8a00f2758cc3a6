"""A large mesh in memory, that changes from second to second as a busy one does."""

import random
from dataclasses import dataclass

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.metrics_pb2 import DeploymentLoad, Snapshot
from forebay.v1.node_pb2 import Gpu, Node, ReplicaStatus
from services.autoscaler.plan import Plan
from services.autoscaler.roster import Assigned, Roster
from services.wire.names import deployment_name, node_name

ACTIVE_RATIO = 0.2
"""Share of the deployments that have load at all at any time."""

CHANGING_RATIO = 0.1
"""Share of the active ones whose load changes in a second."""

LOST_NODE_EVERY = 10
"""Ticks between two nodes that are lost, one at a time."""

GPUS_PER_NODE = 8
START_S = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept deployment."""

    value: bytes
    revision: int


class MeshModel:
    """Deployments, nodes, and what metrics would say of them."""

    def __init__(self, deployments: int, nodes: int, replicas: int, seed: int = 1) -> None:
        """A mesh in which so many replicas are wanted.

        Args:
            deployments: half a GPU for each of their replicas.
            nodes: with GPUS_PER_NODE GPUs each.
            replicas: about so many over all deployments.
        """
        self._random = random.Random(seed)
        self.roster = Roster()
        self._node_names = [f"node-{number}" for number in range(nodes)]
        self._per_deployment = max(1, replicas // deployments)
        self.entries = {
            f"deployment-{number}": Entry(self._deployment(number), number + 1)
            for number in range(deployments)
        }
        self._names = list(self.entries)
        count = int(deployments * ACTIVE_RATIO)
        self._active = set(self._random.sample(self._names, count))
        self._load = {name: self._some_load() for name in self._active}
        self._since: dict[str, float] = {}
        self._lost: str | None = None

    def snapshot(self, now_s: float) -> Snapshot:
        """What metrics says at an instant."""
        self._change()
        snapshot = Snapshot()
        snapshot.sample_time.FromNanoseconds(int(now_s * 1e9))
        for name in self._names:
            load = self._load.get(name, 0)
            ongoing = min(load, 2 * len(self.roster.of(name)))
            message = DeploymentLoad(
                deployment=deployment_name(name),
                queued_count=load - ongoing,
                ongoing_count=ongoing,
                redelivered_count=0,
            )
            message.age.FromMilliseconds(300)
            snapshot.deployments.append(message)
        snapshot.nodes.extend(self._node(name, now_s) for name in self._node_names)
        return snapshot

    def lose_a_node(self) -> None:
        """Takes one node away and gives the last one back."""
        self._lost = self._random.choice(self._node_names)

    def apply(self, made: Plan, now_s: float) -> None:
        """Runs what a plan says."""
        for node, change in made.changes.items():
            kept = [r for r in self.roster.on(node).values() if r.replica_id not in change.remove]
            created = [
                Assigned(r.replica_id, owner, r.generation, r.share, r.request_timeout_s)
                for owner, r in change.create
            ]
            for replica in created:
                self._since[replica.replica_id] = now_s
            for replica_id in change.remove:
                self._since.pop(replica_id, None)
            self.roster.put(node, [*kept, *created])

    def _deployment(self, number: int) -> bytes:
        deployment = Deployment(
            name=deployment_name(f"deployment-{number}"),
            generation=1,
            max_ongoing_requests=4,
        )
        deployment.resources.gpus = 0.25
        deployment.request_timeout.seconds = 60
        scaling = deployment.scaling
        # Most deployments keep their replicas; the others come and go with their load.
        scaling.min_replicas = self._per_deployment if number % 4 else 0
        scaling.max_replicas = 4 * self._per_deployment
        scaling.policy.ongoing_requests.target_ongoing_requests = 2
        scaling.downscale_delay.seconds = 20
        scaling.downscale_to_zero_delay.seconds = 20
        return bytes(deployment.SerializeToString())

    def _change(self) -> None:
        names = sorted(self._active)
        for name in self._random.sample(names, int(len(names) * CHANGING_RATIO)):
            self._load[name] = self._some_load()

    def _some_load(self) -> int:
        return self._random.choice((0, 1, 2, 4, 8, 12))

    def _node(self, name: str, now_s: float) -> Node:
        lost = name == self._lost
        message = Node(
            name=node_name(name),
            slot_count=4,
            state=Node.STATE_OFFLINE if lost else Node.STATE_ACTIVE,
            applied_revision=1 << 40,
            gpus=[
                Gpu(uuid=f"{name}-{index}", product_name="L4", memory_total_bytes=24 << 30)
                for index in range(GPUS_PER_NODE)
            ],
        )
        silent_s = 60.0 if lost else 0.5
        message.last_report_time.FromNanoseconds(int((now_s - silent_s) * 1e9))
        for replica in self.roster.on(name).values():
            ready = now_s - self._since[replica.replica_id] >= START_S
            message.replicas.append(
                ReplicaStatus(
                    replica_id=replica.replica_id,
                    deployment=deployment_name(replica.deployment),
                    generation=replica.generation,
                    gpu_uuids=replica.share.gpu_uuids,
                    gpus=replica.share.demand.gpus,
                    state=ReplicaStatus.STATE_READY if ready else ReplicaStatus.STATE_STARTING,
                    start_count=1,
                    ongoing_count=1 if replica.deployment in self._active else 0,
                )
            )
        return message
