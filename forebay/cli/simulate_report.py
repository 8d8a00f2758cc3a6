"""What `forebay simulate` says of its runs: numbers, a table, plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.autoscaler.simulation.tally import (
    Tally,
    most_replicas,
    percentiles,
    replicas_by_period,
)

_BARS = "▁▂▃▄▅▆▇█"
_SHARES = (0.5, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Result:
    """Numbers of one deployment, or of all that are like it, together.

    Attributes:
        late: requests that waited for longer than the target, or were never served.
        over_target_ratio: their share of all, 0 to 1.
        wait_p50_s, wait_p95_s, wait_p99_s, wait_max_s: queue waits of those that were delivered;
            None if none was.
        never_served: refused, given up by their clients, set aside, or still there at the end.
        replica_s: time that replicas were assigned, in seconds.
        replicas: mean of each period.
        arrivals_per_s: mean of each period.
        no_place: why no replica can ever have a place on the nodes; empty if one can.
    """

    requests: int
    served: int
    late: int
    over_target_ratio: float
    wait_p50_s: float | None
    wait_p95_s: float | None
    wait_p99_s: float | None
    wait_max_s: float | None
    never_served: int
    refused: int
    gave_up: int
    poison: int
    unfinished: int
    replica_s: float
    mean_replicas: float
    max_replicas: int
    scale_ups: int
    scale_downs: int
    cold_starts: int
    replica_starts: int
    replicas: list[float] = field(repr=False)
    arrivals_per_s: list[float] = field(repr=False)
    no_place: str = ""


def result_of(tally: Tally, duration_s: float, target_s: float, no_place: str = "") -> Result:
    """The numbers of a run."""
    p50_s, p95_s, p99_s, longest_s = percentiles(tally.waits_s, _SHARES)
    never = tally.refused + tally.left + tally.poison + tally.unfinished
    # Whoever was delivered and is not served yet is among the unfinished.
    late = min(tally.requests, int(np.sum(tally.waits_s > target_s)) + never)
    period_s = duration_s / len(tally.arrivals)
    return Result(
        requests=tally.requests,
        served=tally.served,
        late=late,
        over_target_ratio=late / tally.requests if tally.requests else 0.0,
        wait_p50_s=p50_s,
        wait_p95_s=p95_s,
        wait_p99_s=p99_s,
        wait_max_s=longest_s,
        never_served=never,
        refused=tally.refused,
        gave_up=tally.left,
        poison=tally.poison,
        unfinished=tally.unfinished,
        replica_s=tally.replica_s,
        mean_replicas=tally.replica_s / duration_s,
        max_replicas=most_replicas(tally),
        scale_ups=tally.ups,
        scale_downs=tally.downs,
        cold_starts=tally.cold_starts,
        replica_starts=tally.starts,
        replicas=replicas_by_period(tally, duration_s),
        arrivals_per_s=[float(count) / period_s for count in tally.arrivals],
        no_place=no_place,
    )


def table(results: Mapping[str, Result], target_s: float) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, one column for each deployment."""
    every = list(results.values())
    top = max((max(r.replicas, default=0.0) for r in every), default=0.0)
    rows = [
        ["requests", *(f"{r.requests:,}" for r in every)],
        ["never served", *(_never(r) for r in every)],
        ["queue wait p50", *(_seconds(r.wait_p50_s) for r in every)],
        ["queue wait p95", *(_seconds(r.wait_p95_s) for r in every)],
        ["queue wait p99", *(_seconds(r.wait_p99_s) for r in every)],
        ["queue wait max", *(_seconds(r.wait_max_s) for r in every)],
        [f"over {target_s:g} s", *(f"{r.over_target_ratio:.2%}" for r in every)],
        ["replica-seconds", *(f"{r.replica_s:,.0f}" for r in every)],
        ["replicas mean / max", *(f"{r.mean_replicas:.2f} / {r.max_replicas}" for r in every)],
        ["scaled up / down", *(f"{r.scale_ups:,} / {r.scale_downs:,}" for r in every)],
        ["cold starts", *(f"{r.cold_starts:,}" for r in every)],
        ["replicas started", *(f"{r.replica_starts:,}" for r in every)],
        ["replicas over time", *(sparkline(r.replicas, top) for r in every)],
        ["arrivals over time", *(sparkline(r.arrivals_per_s) for r in every)],
    ]
    return ["", *results], rows


def plain(results: Mapping[str, Result], duration_s: float, target_s: float) -> dict[str, Any]:
    """The same as JSON's types."""
    return {
        "duration_s": duration_s,
        "latency_target_s": target_s,
        "deployments": {
            name: {key: _rounded(getattr(result, key)) for key in result.__dataclass_fields__}
            for name, result in results.items()
        },
    }


def sparkline(values: Sequence[float], top: float = 0.0) -> str:
    """Values as a line of bars, the highest of which is `top` or the largest value."""
    top = top or max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    steps = len(_BARS) - 1
    return "".join(_BARS[min(steps, round(value / top * steps))] for value in values)


def _never(result: Result) -> str:
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (result.gave_up, "gave up"),
            (result.refused, "refused"),
            (result.poison, "poison"),
            (result.unfinished, "unfinished"),
        )
        if count
    ]
    return f"{result.never_served:,} ({', '.join(parts)})" if parts else "0"


def _seconds(value_s: float | None) -> str:
    if value_s is None:
        return "none"
    if value_s < 0.0005:
        return "0"
    return f"{value_s * 1000:.0f} ms" if value_s < 1 else f"{value_s:,.1f} s"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    return [round(item, 6) for item in value] if isinstance(value, list) else value
