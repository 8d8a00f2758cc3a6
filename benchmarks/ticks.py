"""How long a look at a large mesh takes: everything a tick does but waiting for NATS."""

import gc
import itertools
import os
import statistics
import time
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


@dataclass(frozen=True, slots=True)
class Ticks:
    """What was measured.

    Attributes:
        p50_s, p99_s: duration of a tick.
        replicas: at the end.
        rss_bytes: of this process at the end, the model of the mesh included.
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


async def measure(deployments: int, nodes: int, replicas: int, ticks: int) -> Ticks:
    """Runs ticks on one core.

    Args:
        deployments: how many are declared.
        nodes: how many report.
        replicas: about how many are wanted.
        ticks: how many are measured, one for each second of the model.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return _measure(deployments, nodes, replicas, ticks)
    finally:
        os.sched_setaffinity(0, before)


def _measure(deployments: int, nodes: int, replicas: int, ticks: int) -> Ticks:
    garbage.collect_rarely()
    model, clock = MeshModel(deployments, nodes, replicas), ModelClock()
    # Never connected: what would be written is kept, and nothing is waited for.
    link = NatsLink("benchmark", "nats://127.0.0.1:1")
    kept = KvMirror(link, streams.scaling_bucket)
    targets = Targets(kept, Journal(link), clock, CustomPolicies(None, clock))
    targets.begin_term(1)
    declarations, absences, leaving = Declarations(), Absences(10.0), Leaving()
    ids = itertools.count()

    def tick(serialised: bytes) -> Plan:
        snapshot = Snapshot.FromString(serialised)
        declared = declarations.update(model.entries)
        targets.declare(declared, model.roster)
        view = view_of(snapshot)
        wanted = targets.look(loads_of(snapshot), view.replicas, model.roster)
        made = plan(
            {name: declaration.spec for name, declaration in declared.items()},
            wanted,
            model.roster,
            view,
            lambda name: f"{name}-{next(ids):08x}",
            gone=absences.gone(clock.now_s, view, model.roster.nodes),
            leaving=leaving.current(view),
            protected=targets.protected(wanted, model.roster, view.replicas),
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
        targets.startups.forget(model.roster.by_id, declared)
        return made

    took_s: list[float] = []
    for number in range(WARM_UP_TICKS + ticks):
        clock.now_s += 1.0
        if number % LOST_NODE_EVERY == 0:
            model.lose_a_node()
        serialised = model.snapshot(clock.now_s).SerializeToString()
        started_s = time.perf_counter()
        made = tick(serialised)
        took_s.append(time.perf_counter() - started_s)
        model.apply(made, clock.now_s)
    measured = sorted(took_s[WARM_UP_TICKS:])
    gc.collect()
    return Ticks(
        deployments,
        nodes,
        len(model.roster.by_id),
        statistics.median(measured),
        measured[min(len(measured) - 1, int(len(measured) * 0.99))],
        psutil.Process().memory_info().rss,
    )
