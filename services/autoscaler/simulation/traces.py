"""Recorded arrivals, as people have them: one for each row, or counts for each minute. Pure.

Read here, by their header or their first row:

- plain seconds, one arrival for each row, in any order;
- CSV with a column TIMESTAMP (ISO 8601), one arrival for each row, as the LLM traces of Azure;
- CSV with a column for each minute, one function for each row, as the function traces of Azure.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from services.autoscaler.simulation.service_times import Z99, ServiceTimes

MINUTE_S = 60.0
MAX_ARRIVALS = 100_000_000
"""Beyond it the lists of a run would not fit into the memory of a usual machine."""

Key = tuple[str, ...]


class TraceError(Exception):
    """A file is not what it should be; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Series:
    """Arrivals of one deployment.

    Attributes:
        key: what the trace calls it; empty if the trace has only one.
        times_s: instants in seconds, ascending; empty if `counts` are given.
        counts: arrivals in each minute.
    """

    key: Key = ()
    times_s: Sequence[float] = ()
    counts: Sequence[int] = ()

    @property
    def count(self) -> int:
        """How many arrive."""
        return len(self.times_s) or sum(self.counts)

    def arrivals(self, seed: Sequence[int], evenly: bool = False) -> "np.ndarray":
        """Instants in seconds, ascending; counts are spread over their minutes."""
        if not self.counts:
            return np.asarray(self.times_s, dtype=float)
        minutes = np.repeat(np.arange(len(self.counts)), self.counts) * MINUTE_S
        if evenly:
            parts = [(np.arange(n) + 0.5) / n for n in self.counts if n]
            offsets = np.concatenate(parts) if parts else np.zeros(0)
        else:
            offsets = np.random.default_rng(list(seed)).random(len(minutes))
        return np.sort(minutes + offsets * MINUTE_S)


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals of one or more deployments.

    Attributes:
        series: of each deployment.
        duration_s: how long it was recorded.
    """

    series: tuple[Series, ...]
    duration_s: float


def trace_of(lines: Sequence[str], source: str) -> Trace:
    """The trace in a file.

    Args:
        lines: of the file.
        source: its name, for errors.

    Raises:
        TraceError: if it is none of the formats, or has no arrival.
    """
    rows = list(_rows(lines))
    if not rows:
        raise TraceError(f"{source}:1: the file is empty; legal is {_LEGAL}")
    _, header = rows[0]
    minutes = [i for i, cell in enumerate(header) if cell.strip().isdigit()]
    if len(minutes) > 1:
        trace = _counts(rows, minutes, source)
    else:
        names = [cell.strip().upper() for cell in header]
        if "TIMESTAMP" in names:
            trace = _stamped(rows[1:], names.index("TIMESTAMP"), source)
        else:
            trace = _seconds(rows, source)
    total = sum(series.count for series in trace.series)
    if not total:
        raise TraceError(f"{source}: no request arrives in it; there must be at least one")
    if total > MAX_ARRIVALS:
        raise TraceError(f"{source}: {total} requests arrive; there may be {MAX_ARRIVALS}")
    return trace


_LEGAL = (
    "seconds, one arrival for each row; CSV with a column TIMESTAMP; or CSV with a column for each "
    "minute and a function for each row"
)


def _rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of all rows that are neither empty nor a comment."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, next(csv.reader([text]))


def _seconds(rows: list[tuple[int, list[str]]], source: str) -> Trace:
    times: list[float] = []
    for number, cells in rows:
        at_s = _number(cells[0], f"{source}:{number}", f"an instant in seconds ({_LEGAL})")
        times.append(at_s)
    times.sort()
    return Trace((Series(times_s=tuple(times)),), times[-1])


def _stamped(rows: list[tuple[int, list[str]]], column: int, source: str) -> Trace:
    times: list[float] = []
    for number, cells in rows:
        text = cells[column].strip() if column < len(cells) else ""
        try:
            times.append(datetime.fromisoformat(text).timestamp())
        except ValueError:
            raise TraceError(
                f"{source}:{number}: TIMESTAMP = {text!r}: it must be an instant in ISO 8601, such "
                "as 2023-11-16 18:15:46.680590"
            ) from None
    times.sort()
    first_s = times[0] if times else 0.0
    since_s = tuple(at_s - first_s for at_s in times)
    return Trace((Series(times_s=since_s),), since_s[-1] if since_s else 0.0)


def _counts(rows: list[tuple[int, list[str]]], minutes: list[int], source: str) -> Trace:
    series: list[Series] = []
    first = minutes[0]
    for number, cells in rows[1:]:
        if len(cells) != len(rows[0][1]):
            raise TraceError(
                f"{source}:{number}: {len(cells)} columns, the header has {len(rows[0][1])}"
            )
        counts = tuple(_count(cells[i], f"{source}:{number}", rows[0][1][i]) for i in minutes)
        # Owner, application and function say who it is; a trigger does not.
        series.append(Series(tuple(cells[: min(first, 3)]), counts=counts))
    return Trace(tuple(series), len(minutes) * MINUTE_S)


def durations_of(lines: Sequence[str], source: str) -> dict[Key, ServiceTimes]:
    """Service times in a file.

    Either seconds, one request for each row, to draw from: the empty key. Or CSV with the columns
    HashOwner, HashApp, HashFunction, Average, Minimum, Maximum, percentile_Average_50 and
    percentile_Average_99 in milliseconds, as the function traces of Azure.

    Raises:
        TraceError: if it is neither.
    """
    rows = list(_rows(lines))
    if not rows:
        raise TraceError(f"{source}:1: the file is empty; there must be at least one duration")
    header = [cell.strip() for cell in rows[0][1]]
    if "Average" not in header:
        recorded = [
            _number(cells[0], f"{source}:{number}", "a duration in seconds")
            for number, cells in rows
        ]
        return {(): ServiceTimes(recorded_s=tuple(recorded))}
    found: dict[Key, ServiceTimes] = {}
    for number, cells in rows[1:]:
        values = dict(zip(header, cells, strict=False))
        found[tuple(cells[: min(3, header.index("Average"))])] = _times(
            values, f"{source}:{number}"
        )
    return found


def _times(values: dict[str, str], where: str) -> ServiceTimes:
    def seconds(column: str, otherwise: float) -> float:
        if column not in values:
            return otherwise
        return _number(values[column], where, f"{column} in milliseconds") / 1000

    average_s = seconds("Average", 0.0)
    median_s = seconds("percentile_Average_50", average_s)
    p99_s = seconds("percentile_Average_99", median_s)
    if not 0 < median_s < p99_s:
        return ServiceTimes(max(average_s, 1e-3))
    return ServiceTimes(
        median_s,
        math.log(p99_s / median_s) / Z99,
        seconds("Minimum", 0.0),
        max(median_s, seconds("Maximum", math.inf)),
    )


def _number(text: str, where: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise TraceError(f"{where}: {text.strip()!r}: it must be {what}, 0 or more")
    return value


def _count(text: str, where: str, minute: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = -1
    if not 0 <= count <= MAX_ARRIVALS:
        raise TraceError(
            f"{where}: minute {minute}: {text.strip()!r}: it must be a number of requests, 0 or "
            f"more and at most {MAX_ARRIVALS}"
        )
    return count
