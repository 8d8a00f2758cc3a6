"""Looks at the mesh every INTERVAL_S and keeps what it saw for the page."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from forebay.v1.deployment_pb2 import DeploymentStatus
from forebay.v1.metrics_pb2 import DeploymentLoad
from forebay.v1.node_pb2 import Node
from services.metrics.page import points
from services.metrics.page.history import INTERVAL_S, LENGTH, History
from services.metrics.page.points import Values
from services.metrics.snapshots import Mesh
from services.runtime.clock import Clock
from services.wire import names
from services.wire.kv_mirror import KvMirror

MESH = "mesh"

MAX_DEPLOYMENTS = 200
MAX_GPUS = 256

MAX_HELD_GPUS = 16

RATE_LOOKS = 6
"""Rates are taken over twelve seconds: what replicas count is read every three by default."""

Counts = dict[str, dict[str, int]]


@dataclass(slots=True)
class Look:
    """What was seen last.

    Attributes:
        wall_s: when, in seconds since the epoch.
        loads: by deployment's id.
        nodes: by node's id.
        statuses: as the autoscaler wrote them, by deployment's id.
    """

    wall_s: float = 0.0
    loads: dict[str, DeploymentLoad] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    statuses: dict[str, DeploymentStatus] = field(default_factory=dict)


class Sampler:
    """The last look and the histories.

    Attributes:
        look: what was seen last.
        mesh: history of the whole mesh.
        deployments: history by deployment's id, of the MAX_DEPLOYMENTS in use last.
        gpus: history by `{node}/{uuid}`, of the first MAX_GPUS.
    """

    def __init__(self, mesh: Mesh, deployments: KvMirror, clock: Clock, settle_s: float) -> None:
        """Has seen nothing until `run` does.

        Args:
            mesh: what is looked at.
            deployments: the bucket that says which there are and what is wanted of each.
            clock: tells when.
            settle_s: how long after the first look nothing goes into the histories yet: until
                agents have found this process, that no replica reports does not mean there is none.
        """
        self._mesh = mesh
        self._settled_s = clock.monotonic_s() + settle_s
        self._bucket = deployments
        self._clock = clock
        self._statuses: dict[str, tuple[int, DeploymentStatus]] = {}
        # The last looks at what was counted: when, and counts by outcome by deployment's id.
        self._counted: deque[tuple[float, Counts]] = deque(maxlen=RATE_LOOKS)
        # By deployment's id: the tick at which each GPU, of a node, was last held.
        self._held: dict[str, dict[tuple[str, str], int]] = {}
        self.look = Look()
        self.mesh = History(max_groups=1)
        self.deployments = History(max_groups=MAX_DEPLOYMENTS)
        self.gpus = History(max_groups=MAX_GPUS)

    async def run(self) -> None:
        """Samples for ever."""
        while True:
            self.sample()
            await asyncio.sleep(INTERVAL_S)

    def sample(self) -> None:
        """Takes one look."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        snapshot = self._mesh.snapshot()
        self.look = Look(
            wall_s,
            {names.deployment_id(load.deployment): load for load in snapshot.deployments},
            {names.node_id(node.name): node for node in snapshot.nodes},
            self._read_statuses(),
        )
        if now_s < self._settled_s or not self._bucket.known:
            return
        for history in (self.mesh, self.deployments, self.gpus):
            history.begin(wall_s)
        ended = self._sample_deployments(now_s)
        self.mesh.put(MESH, points.of_mesh(snapshot, self.look.statuses.values()) | ended)
        self._sample_gpus()

    def held_gpus(self, deployment: str) -> dict[str, set[str]]:
        """GPUs, by node's id, that replicas of a deployment held within the history."""
        found: dict[str, set[str]] = {}
        for node_id, uuid in self._held.get(deployment, {}):
            found.setdefault(node_id, set()).add(uuid)
        return found

    def _read_statuses(self) -> dict[str, DeploymentStatus]:
        """What the autoscaler wrote of each deployment; parsed again only where it wrote anew."""
        entries = self._bucket.entries("status.")
        for deployment, entry in entries.items():
            kept = self._statuses.get(deployment)
            if kept is None or kept[0] != entry.revision:
                parsed = DeploymentStatus.FromString(entry.value)
                self._statuses[deployment] = (entry.revision, parsed)
        for gone in self._statuses.keys() - entries.keys():
            del self._statuses[gone]
        return {deployment: status for deployment, (_, status) in self._statuses.items()}

    def _sample_deployments(self, now_s: float) -> Values:
        """Puts the deployments into their history and returns the outcomes of all of them."""
        look, history = self.look, self.deployments
        memory = points.of_memory(look.nodes.values())
        counts: Counts = {}
        sums: Values = {}
        history.keep(look.loads.keys())
        for deployment, load in look.loads.items():
            status = look.statuses.get(deployment)
            in_use = points.in_use(load, status)
            kept = deployment in history
            if not in_use and not kept and len(history) >= MAX_DEPLOYMENTS:
                continue
            ended = self._outcomes(deployment, counts, now_s)
            for outcome, rate in ended.items():
                sums[outcome] = (sums.get(outcome) or 0) + (rate or 0)
            # Looking at one closely takes 15 µs, and there may be 10,000.
            if kept or history.has_room:
                values = (
                    points.of_deployment(load, status) | ended | memory.get(load.deployment, {})
                )
                history.put(deployment, values, in_use)
        self._counted.append((now_s, counts))
        return sums

    def _outcomes(self, deployment: str, counts: Counts, now_s: float) -> Values:
        """Rates of what ended since the oldest look; what there is now is added to `counts`."""
        totals = self._mesh.totals(deployment)
        if totals is None:
            return {}
        now = counts[deployment] = dict(totals.attempts)
        for then_s, then in self._counted:
            if deployment in then:
                return points.rates(then[deployment], now, now_s - then_s)
        return {}

    def _sample_gpus(self) -> None:
        nodes = self.look.nodes.items()
        there = {f"{node_id}/{gpu.uuid}" for node_id, node in nodes for gpu in node.gpus}
        self.gpus.keep(there)
        for node_id, node in nodes:
            if node.state == Node.STATE_OFFLINE:
                continue
            for gpu in node.gpus:
                group = f"{node_id}/{gpu.uuid}"
                if group in self.gpus or len(self.gpus) < MAX_GPUS:
                    self.gpus.put(group, points.of_gpu(gpu))
        self._remember_held()

    def _remember_held(self) -> None:
        """Takes note of which GPUs deployments hold: they are shown for as long as their lines."""
        tick = self.gpus.tick
        for node_id, node in self.look.nodes.items():
            for replica in node.replicas:
                if not replica.gpu_uuids:
                    continue
                # Checked when it was reported; checking all again would take 50 ms.
                deployment = replica.deployment.rpartition("/")[2]
                if deployment not in self.deployments:
                    continue
                held = self._held.setdefault(deployment, {})
                for uuid in replica.gpu_uuids:
                    if len(held) < MAX_HELD_GPUS or (node_id, uuid) in held:
                        held[node_id, uuid] = tick
        for deployment in list(self._held):
            held = self._held[deployment]
            for gpu in [gpu for gpu, last in held.items() if tick - last >= LENGTH]:
                del held[gpu]
            if not held or deployment not in self.deployments:
                del self._held[deployment]
