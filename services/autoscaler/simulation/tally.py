"""What came of a simulated run, in numbers. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from services.autoscaler.simulation.deployed import Deployed

PERIODS = 60
"""Into how many periods a report divides the time."""


@dataclass
class Tally:
    """Of one deployment, or of several together.

    Attributes:
        requests: that came.
        served, left, refused, poison, unfinished: how they ended: left, because the client had
            waited for as long as it would; unfinished: still there when the run ended.
        waits_s: queue waits of those that were delivered.
        late: of those, how many waited for longer than the target.
        ups, downs: times that a target rose and fell.
        cold_starts: times that one rose from zero.
        starts: replicas started.
        decisions: that were worth a record.
        replica_s: time that replicas were assigned, in seconds.
        changes: of the number of assigned replicas: instants, and by how many.
        arrivals: in each period.
    """

    requests: int = 0
    served: int = 0
    left: int = 0
    refused: int = 0
    poison: int = 0
    unfinished: int = 0
    ups: int = 0
    downs: int = 0
    cold_starts: int = 0
    starts: int = 0
    decisions: int = 0
    replica_s: float = 0.0
    waits_s: "np.ndarray" = field(default_factory=lambda: np.zeros(0))
    changes: "np.ndarray" = field(default_factory=lambda: np.zeros((2, 0)))
    arrivals: "np.ndarray" = field(default_factory=lambda: np.zeros(PERIODS))


_COUNTS = (
    "requests",
    "served",
    "left",
    "refused",
    "poison",
    "unfinished",
    "ups",
    "downs",
    "cold_starts",
    "starts",
    "decisions",
)


def tally_of(deployed: Deployed, duration_s: float, decisions: int) -> Tally:
    """What came of one deployment.

    Args:
        deployed: after its run.
        duration_s: replicas count until then; requests that came before are followed to their end.
        decisions: that were worth a record.
    """
    levels = [level for level in deployed.levels if level[0] < duration_s]
    at_s = np.array([level[0] for level in levels], dtype=float)
    assigned = np.array([level[1] for level in levels], dtype=float)
    changes = np.diff(assigned, prepend=0.0)
    arrived = np.asarray(deployed.arrived, dtype=float)
    arrivals, _ = np.histogram(arrived, bins=PERIODS, range=(0.0, duration_s))
    return Tally(
        requests=deployed.accepted + deployed.refused,
        served=deployed.served,
        left=deployed.left,
        refused=deployed.refused,
        poison=deployed.ended_poison,
        unfinished=deployed.held,
        ups=deployed.ups,
        downs=deployed.downs,
        cold_starts=deployed.cold_starts,
        starts=deployed.starts,
        decisions=decisions,
        replica_s=float(np.sum(changes * (duration_s - at_s))),
        waits_s=np.array(deployed.waits_s, dtype=float),
        changes=np.vstack([at_s, changes]),
        arrivals=arrivals.astype(float),
    )


def together(tallies: Iterable[Tally]) -> Tally:
    """Several as one."""
    every = list(tallies)
    total = Tally(replica_s=sum(t.replica_s for t in every))
    for name in _COUNTS:
        setattr(total, name, sum(getattr(t, name) for t in every))
    if every:
        total.waits_s = np.concatenate([t.waits_s for t in every])
        changes = np.concatenate([t.changes for t in every], axis=1)
        total.changes = changes[:, np.argsort(changes[0], kind="stable")]
        total.arrivals = np.sum([t.arrivals for t in every], axis=0)
    return total


def most_replicas(tally: Tally) -> int:
    """The most that were assigned at any time."""
    at_s, changes = tally.changes
    if not len(at_s):
        return 0
    levels = np.cumsum(changes)
    # What changes at one instant changes at once.
    last = np.append(at_s[1:] != at_s[:-1], True)
    return int(levels[last].max())


def replicas_by_period(tally: Tally, duration_s: float) -> list[float]:
    """The mean number of replicas in each period."""
    edges = np.linspace(0.0, duration_s, PERIODS + 1)
    at_s, changes = tally.changes
    # Replica-seconds until each edge.
    until = [float(np.sum(changes * np.clip(edge - at_s, 0.0, None))) for edge in edges]
    period_s = duration_s / PERIODS
    return [(b - a) / period_s for a, b in pairwise(until)]


def percentiles(waits_s: "np.ndarray", shares: Sequence[float]) -> list[float | None]:
    """Queue waits of which such shares, 0 to 1, are at most as long; None if there are none."""
    if not len(waits_s):
        return [None] * len(shares)
    return [float(value) for value in np.quantile(waits_s, shares)]
