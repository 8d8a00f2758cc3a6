"""What the autoscaler sees of a simulated mesh. Pure: time is an argument."""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from services.autoscaler.observe import WAKE_HOLD_S
from services.autoscaler.scaling.signals import Signals
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.mesh import Mesh
from services.autoscaler.startups import Starts
from services.autoscaler.view import ReplicaView, State, View

WINDOW_S = 60.0
"""How far back means of service times and rates go, as in metrics."""


class Sample(NamedTuple):
    """What metrics polled of one deployment at one instant; None is not known."""

    queued: int | None
    ongoing: int | None
    redelivered: int
    poison: int


UNKNOWN = Sample(None, None, 0, 0)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a window says of a deployment: rates and means, None if nothing ended in it."""

    service_time_s: float | None = None
    arrivals_per_s: float | None = None
    queue_wait_p95_s: float | None = None


NO_PACE = Pace()


class PaceWindow:
    """Service times and arrivals over the last window, from totals."""

    __slots__ = ("_totals",)

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int, float, int, int]] = deque()

    def pace(self, now_s: float, d: Deployed) -> Pace:
        """The pace until now; to be asked at every tick."""
        totals = self._totals
        now = (now_s, d.served, d.served_s, d.accepted, len(d.waits_s))
        totals.append(now)
        while len(totals) > 1 and totals[1][0] <= now_s - WINDOW_S:
            totals.popleft()
        first = totals[0]
        served, length_s = now[1] - first[1], now_s - first[0]
        waits = sorted(d.waits_s[first[4] :])
        return Pace(
            (now[2] - first[2]) / served if served else None,
            (now[3] - first[3]) / length_s if length_s else None,
            waits[int(0.95 * (len(waits) - 1))] if waits else None,
        )

    def moves(self, d: Deployed) -> bool:
        """Whether what it says changes with time."""
        first = self._totals[0] if self._totals else None
        return d.held > 0 or first is None or first[1:] != self._totals[-1][1:]


def sample_of(d: Deployed) -> Sample:
    """What metrics would see of a deployment now."""
    if d.consumer_missing:
        return UNKNOWN
    return Sample(d.queued, d.ongoing, len(d.redelivered), d.ended_poison)


def signals_of(
    sample: Sample,
    starts: Starts,
    assigned: int,
    woken: bool,
    pace: Pace = NO_PACE,
    custom: tuple[float | None, str] = (None, ""),
    window_min: int = 0,
) -> Signals:
    """The signals of one deployment, as `observe.signals_of` makes them of metrics' word."""
    queued, ongoing = sample.queued, sample.ongoing
    if woken:
        queued, ongoing = max(1, queued or 0), ongoing or 0
    return Signals(
        queued=queued,
        ongoing=ongoing,
        redelivered=sample.redelivered,
        service_time_s=pace.service_time_s,
        arrivals_per_s=pace.arrivals_per_s,
        queue_wait_p95_s=pace.queue_wait_p95_s,
        poison=sample.poison or None,
        assigned=assigned,
        ready=starts.ready,
        starting=starts.starting,
        unstartable=starts.unstartable,
        custom=custom[0],
        custom_error=custom[1],
        window_min=window_min,
    )


def is_woken(woken_s: float | None, now_s: float) -> bool:
    """Whether a router's word still stands for a waiting request."""
    return woken_s is not None and now_s - woken_s <= WAKE_HOLD_S


def view_of(mesh: Mesh) -> View:
    """What the nodes report now."""
    now_s = mesh.agenda.now_s
    replicas: dict[str, ReplicaView] = {}
    draining: dict[str, int] = {}
    for node in mesh.nodes.values():
        if not node.present:
            continue
        for replica in node.replicas.values():
            name = replica.deployment.name
            if replica.state is State.DRAINING:
                draining[name] = draining.get(name, 0) + 1
            ready_s = replica.ready_s
            replicas[replica.replica_id] = ReplicaView(
                node.name,
                name,
                replica.generation,
                replica.state,
                len(replica.ongoing),
                replica.start_count,
                None if ready_s is None else ready_s - replica.assigned_s,
                replica.share.gpu_uuids,
                replica.share.demand.gpus,
            )
    return View(
        tuple(node.seen for node in mesh.nodes.values()),
        {node.name: node.attendance(now_s) for node in mesh.nodes.values()},
        replicas,
        draining,
    )
