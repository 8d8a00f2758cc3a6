"""How long a look at a large mesh takes: everything a tick does but waiting for NATS."""

import gc
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from benchmarks.mesh_model import LOST_NODE_EVERY, MeshModel
from forebay.v1.metrics_pb2 import Snapshot
from services.autoscaler import status
from services.autoscaler.custom.runner import CustomPolicies
from services.autoscaler.declarations import Declarations
from services.autoscaler.journal import Journal
from services.autoscaler.observe import loads_of
from services.autoscaler.plan import Plan, plan
from services.autoscaler.presence import Absences, Leaving
from services.autoscaler.targets import Targets
from services.autoscaler.view import view_of
from services.runtime import garbage
from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

WARM_UP_TICKS = 30
TURN_TICKS = 10


@dataclass(frozen=True, slots=True)
class Ticks:
    """What was measured.

    Attributes:
        p50_s, p99_s: duration of a tick.
        replicas: at the end.
        rss_bytes: of this process at the end, the models of all meshes included.
    """

    deployments: int
    nodes: int
    replicas: int
    p50_s: float
    p99_s: float
    rss_bytes: int


class ModelClock:
    """The time of the model."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        """Seconds of the model."""
        return self.now_s

    def wall_s(self) -> float:
        """The same: the model has no calendar."""
        return self.now_s


class Mesh:
    """One size of mesh, with the autoscaler's objects that look at it."""

    def __init__(self, deployments: int, nodes: int, replicas: int) -> None:
        """A mesh that has just come up.

        Args:
            deployments: how many are declared.
            nodes: how many report.
            replicas: about how many are wanted.
        """
        self._size = (deployments, nodes)
        self._model, self._clock = MeshModel(deployments, nodes, replicas), ModelClock()
        # Never connected: what would be written is kept, and nothing is waited for.
        link = NatsLink("benchmark", "nats://127.0.0.1:1")
        kept = KvMirror(link, streams.scaling_bucket)
        custom = CustomPolicies(None, self._clock)
        self._targets = Targets(kept, Journal(link), self._clock, custom)
        self._targets.begin_term(1)
        self._declarations, self._leaving = Declarations(), Leaving()
        self._absences = Absences(10.0)
        self._ids = itertools.count()
        self._turn = 0
        self._took_s: list[float] = []

    def run(self, ticks: int, measured: bool) -> None:
        """Runs ticks, one for each second of the model."""
        for _ in range(ticks):
            self._clock.now_s += 1.0
            self._turn += 1
            if self._turn % LOST_NODE_EVERY == 0:
                self._model.lose_a_node()
            serialised = self._model.snapshot(self._clock.now_s).SerializeToString()
            started_s = time.perf_counter()
            made = self._tick(serialised)
            if measured:
                self._took_s.append(time.perf_counter() - started_s)
            self._model.apply(made, self._clock.now_s)

    def result(self) -> Ticks:
        """What was measured."""
        measured = sorted(self._took_s)
        gc.collect()
        return Ticks(
            *self._size,
            len(self._model.roster.by_id),
            statistics.median(measured),
            measured[min(len(measured) - 1, int(len(measured) * 0.99))],
            psutil.Process().memory_info().rss,
        )

    def _tick(self, serialised: bytes) -> Plan:
        model, targets = self._model, self._targets
        snapshot = Snapshot.FromString(serialised)
        declared = self._declarations.update(model.entries)
        targets.declare(declared, model.roster)
        view = view_of(snapshot)
        wanted = targets.look(loads_of(snapshot), view.replicas, model.roster)
        made = plan(
            {name: declaration.spec for name, declaration in declared.items()},
            wanted,
            model.roster,
            view,
            lambda name: f"{name}-{next(self._ids):08x}",
            gone=self._absences.gone(self._clock.now_s, view, model.roster.nodes),
            leaving=self._leaving.current(view),
            protected=targets.protected(wanted, model.roster, view.replicas),
            turn=self._turn,
        )
        for name, declaration in declared.items():
            described = status.describe(
                declaration.spec,
                made.steps[name],
                view,
                targets.reason(name),
                targets.startups.startup_s(name),
            )
            described.SerializeToString(deterministic=True)
        targets.startups.forget(model.roster.by_id, declared, view.attendance.keys())
        return made


def measure(sizes: Sequence[tuple[int, int, int]], ticks: int) -> list[Ticks]:
    """Runs ticks at each size on one core, in turns: what else the machine does hits all alike.

    Args:
        sizes: deployments, nodes and about how many replicas of each mesh.
        ticks: how many are measured at each size.
    """
    garbage.collect_rarely()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        meshes = [Mesh(*size) for size in sizes]
        for mesh in meshes:
            mesh.run(WARM_UP_TICKS, measured=False)
        for _ in range(0, ticks, TURN_TICKS):
            for mesh in meshes:
                mesh.run(TURN_TICKS, measured=True)
        return [mesh.result() for mesh in meshes]
    finally:
        os.sched_setaffinity(0, before)
