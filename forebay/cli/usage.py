"""`forebay usage`: what replicas were held for, and for how long."""

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import Any

from forebay import addresses
from forebay.cli.failure import USAGE, CliError
from forebay.cli.link import Where, link_to
from forebay.cli.output import print_json, print_table
from forebay.stubs import usage_service
from forebay.v1.usage_pb2 import ListUsageRequest, Usage
from services.wire.names import InvalidNameError, check_id, deployment_id, deployment_name

_PAGE_SIZE = 1000
_HOUR_S = 3600
_UNITS_S = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


class UsageOutput(StrEnum):
    """How usage is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class UsageOptions:
    """What is asked for.

    Attributes:
        name: a deployment; None: all.
        since: how long ago to begin, such as `24h`.
        by_batch: by tenant and batch of tasks, rather than by deployment.
        by_hour: hour by hour, rather than summed.
    """

    name: str | None
    since: str
    by_batch: bool
    by_hour: bool
    output: UsageOutput


@dataclass(slots=True)
class Row:
    """A line of the list.

    Attributes:
        hour: beginning of the hour in UTC; empty if hours are summed.
        deployment: its id.
        tenant: empty where usage is by deployment.
        batch: empty for work in none, and where usage is by deployment.
        replica_s: seconds of replicas.
        gpu_s: the same times the GPUs of each.
        attempt_count: attempts at tasks that ended; 0 where usage is by deployment.
    """

    hour: str
    deployment: str
    tenant: str
    batch: str
    replica_s: float = 0.0
    gpu_s: float = 0.0
    attempt_count: int = 0


async def run(options: UsageOptions, where: Where, now_s: float) -> None:
    """Prints what was used.

    Args:
        options: what is asked for.
        where: the mesh.
        now_s: seconds since the epoch.

    Raises:
        CliError: if an option is not legal, or the autoscaler cannot be asked.
    """
    begin_s = now_s - since_s(options.since)
    request = ListUsageRequest(page_size=_PAGE_SIZE, by_batch=options.by_batch)
    request.begin_time.FromNanoseconds(int(begin_s * 1e9))
    if options.name is not None:
        try:
            request.parent = deployment_name(check_id(options.name, "deployment"))
        except InvalidNameError as error:
            raise CliError(str(error), USAGE) from error
    rows = summed(await _list(request, where), options.by_hour)
    if options.output is UsageOutput.TABLE:
        _print_table(rows, options)
        return
    plain = [_plain(row, options) for row in rows]
    if options.output is UsageOutput.JSON:
        print_json(plain)
    else:
        columns = list(_plain(Row("", "", "", ""), options))
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)


def since_s(text: str) -> float:
    """A length of time such as `90m`, `24h`, `7d` or `2w`, in seconds.

    Raises:
        CliError: if it is none.
    """
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text.strip())
    if found is None or not int(found[1]):
        raise CliError(
            f"--since {text!r} is no length of time: write a number with m, h, d or w after it, "
            "such as 24h or 7d",
            USAGE,
        )
    return float(int(found[1]) * _UNITS_S[found[2]])


def summed(rows: Sequence[Usage], by_hour: bool) -> list[Row]:
    """The rows as they are printed, by hour if asked for, then by name."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        hour = row.hour_time.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%MZ") if by_hour else ""
        key = (hour, deployment_id(row.deployment), row.tenant, row.batch)
        total = found.setdefault(key, Row(*key))
        total.replica_s += row.replica_time.ToNanoseconds() / 1e9
        total.gpu_s += row.gpu_time.ToNanoseconds() / 1e9
        total.attempt_count += row.attempt_count
    return [found[key] for key in sorted(found)]


async def _list(request: ListUsageRequest, where: Where) -> list[Usage]:
    found: list[Usage] = []
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        service = usage_service(autoscaler.channel)
        while True:
            page = await autoscaler.call(service.ListUsage, request)
            found += page.usage
            request.page_token = page.next_page_token
            if not request.page_token:
                return found


def _print_table(rows: list[Row], options: UsageOptions) -> None:
    columns = ["HOUR"] if options.by_hour else []
    columns += ["DEPLOYMENT"]
    columns += ["TENANT", "BATCH", "ATTEMPTS"] if options.by_batch else []
    columns += ["REPLICA HOURS", "GPU HOURS", "GPU SECONDS"]
    lines = [_line(row, options) for row in rows]
    if len(rows) > 1:
        total = Row("total" if options.by_hour else "", "" if options.by_hour else "total", "", "")
        for row in rows:
            total.replica_s += row.replica_s
            total.gpu_s += row.gpu_s
            total.attempt_count += row.attempt_count
        lines.append(_line(total, options, is_total=True))
    what = "tasks" if options.by_batch else "replicas"
    print_table(columns, lines, empty=f"no {what} in the last {options.since}")


def _line(row: Row, options: UsageOptions, is_total: bool = False) -> list[str]:
    cells = [row.hour] if options.by_hour else []
    cells += [row.deployment]
    if options.by_batch:
        cells += [row.tenant, row.batch or ("" if is_total else "none"), str(row.attempt_count)]
    return [
        *cells,
        f"{row.replica_s / _HOUR_S:.3f}",
        f"{row.gpu_s / _HOUR_S:.3f}",
        f"{row.gpu_s:.1f}",
    ]


def _plain(row: Row, options: UsageOptions) -> dict[str, Any]:
    said: dict[str, Any] = {"hour": row.hour} if options.by_hour else {}
    said["deployment"] = row.deployment
    if options.by_batch:
        said |= {"tenant": row.tenant, "batch": row.batch, "attempt_count": row.attempt_count}
    return {**said, "replica_s": round(row.replica_s, 3), "gpu_s": round(row.gpu_s, 3)}
