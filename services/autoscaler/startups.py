"""How long replicas take to start, and which of them still have their chance. Pure.

A replica has its chance while its Triton starts for the first time and takes no longer than was to
be expected. One that failed, was started again or is overdue has had it: it holds nothing back.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from services.autoscaler.view import ReplicaView, State

FIRST_ALLOWANCE_S = 600.0
"""What a deployment is given that has never started: fetching and loading a model may take long."""

LEAST_ALLOWANCE_S = 60.0
ALLOWED_TIMES_LEARNED = 3.0

LEARNING_RATIO = 0.3
"""Weight of the latest start; older ones fade with each new one."""

MAX_LEARNED = 100_000
"""Pairs of deployment and node that are remembered."""


@dataclass(frozen=True, slots=True)
class Starts:
    """Replicas of one deployment by where they are in their start.

    Attributes:
        ready: answer.
        starting: have their chance.
        unstartable: had it.
    """

    ready: int = 0
    starting: int = 0
    unstartable: int = 0


_NONE = Starts()


class Startups:
    """What has been learned of start-up times, and since when each replica is assigned."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._learned_s: dict[str, dict[str, float]] = {}
        self._learned_count = 0
        # Of deployments whose nodes are all gone: what their nodes said together.
        self._kept_s: dict[str, float] = {}
        self._nodes: Set[str] = frozenset()
        self._assigned_s: dict[str, float] = {}
        self._ready: set[str] = set()

    def learn(self, deployment: str, node: str, startup_s: float) -> None:
        """Takes note of one start."""
        nodes = self._learned_s.setdefault(deployment, {})
        known_s = nodes.get(node)
        if known_s is None:
            if self._learned_count >= MAX_LEARNED:
                return
            self._learned_count += 1
            nodes[node] = startup_s
            self._kept_s.pop(deployment, None)
        else:
            nodes[node] = known_s + LEARNING_RATIO * (startup_s - known_s)

    def startup_s(self, deployment: str, node: str | None = None) -> float | None:
        """Time from assigned to ready in seconds; None if it was never seen.

        Args:
            deployment: its id.
            node: a node's id; None, or a node where it never started: the mean over all nodes.
        """
        nodes = self._learned_s.get(deployment)
        if not nodes:
            return self._kept_s.get(deployment)
        if node in nodes:
            return nodes[node]
        return sum(nodes.values()) / len(nodes)

    def allowance_s(self, deployment: str) -> float:
        """How long a replica may start before it is overdue."""
        learned_s = self.startup_s(deployment)
        if learned_s is None:
            return FIRST_ALLOWANCE_S
        return max(LEAST_ALLOWANCE_S, ALLOWED_TIMES_LEARNED * learned_s)

    def look(
        self,
        now_s: float,
        deployment: str,
        assigned: Iterable[str],
        seen: Mapping[str, ReplicaView],
    ) -> Starts:
        """Where the replicas of a deployment are in their start.

        Args:
            now_s: seconds on a clock that never goes back.
            deployment: its id.
            assigned: ids of its replicas.
            seen: replicas on nodes that report, by id.
        """
        ready = starting = unstartable = 0
        for replica_id in assigned:
            replica = seen.get(replica_id)
            if replica is not None and replica.state is State.READY:
                ready += 1
                if replica_id not in self._ready:
                    self._on_ready(now_s, replica_id, replica)
            elif self._has_its_chance(now_s, deployment, replica_id, replica):
                starting += 1
            else:
                unstartable += 1
        return Starts(ready, starting, unstartable) if ready or starting or unstartable else _NONE

    def has_its_chance(
        self, now_s: float, deployment: str, replica_id: str, replica: ReplicaView | None
    ) -> bool:
        """Whether a replica is starting and has its chance."""
        if replica is not None and replica.state is State.READY:
            return False
        return self._has_its_chance(now_s, deployment, replica_id, replica)

    def forget(
        self,
        assigned: Mapping[str, object],
        deployments: Mapping[str, object],
        nodes: Set[str] | None = None,
    ) -> None:
        """Forgets all but what is assigned, declared and there.

        A deployment of which no node is left keeps the mean of what it learned.

        Args:
            assigned: replicas by id.
            deployments: by id.
            nodes: ids of those that are known; None: not known, none is forgotten.
        """
        for replica_id in self._assigned_s.keys() - assigned.keys():
            del self._assigned_s[replica_id]
        self._ready &= assigned.keys()
        for deployment in self._learned_s.keys() - deployments.keys():
            self._learned_count -= len(self._learned_s.pop(deployment))
        for deployment in self._kept_s.keys() - deployments.keys():
            del self._kept_s[deployment]
        # Only where nodes came or went: called at every look.
        if nodes is not None and self._nodes != nodes:
            self._nodes = frozenset(nodes)
            self._forget_nodes(self._nodes)

    def _forget_nodes(self, nodes: frozenset[str]) -> None:
        for deployment, learned_s in list(self._learned_s.items()):
            gone = learned_s.keys() - nodes
            if not gone:
                continue
            mean_s = sum(learned_s.values()) / len(learned_s)
            self._learned_count -= len(gone)
            for node in gone:
                del learned_s[node]
            if not learned_s:
                del self._learned_s[deployment]
                self._kept_s[deployment] = mean_s

    def _has_its_chance(
        self, now_s: float, deployment: str, replica_id: str, replica: ReplicaView | None
    ) -> bool:
        since_s = self._assigned_s.setdefault(replica_id, now_s)
        if replica is not None:
            if replica.state not in (State.STARTING, State.UNKNOWN):
                return False
            if replica.start_count > 1 or replica_id in self._ready:
                return False
        elif replica_id in self._ready:
            # It was ready and is not seen: its node is away. That is no start.
            return False
        return now_s - since_s <= self.allowance_s(deployment)

    def _on_ready(self, now_s: float, replica_id: str, replica: ReplicaView) -> None:
        self._ready.add(replica_id)
        since_s = self._assigned_s.setdefault(replica_id, now_s)
        # A replica that was ready when it was first seen says itself how long it took.
        took_s = now_s - since_s or replica.startup_s
        if took_s is not None and replica.start_count <= 1:
            self.learn(replica.deployment, replica.node, took_s)
