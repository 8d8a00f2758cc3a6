"""Pages of what was used, oldest first; read from JetStream for each page, kept nowhere."""

import base64
import binascii
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from forebay.v1.usage_pb2 import ListUsageRequest, Usage
from services.autoscaler.usage.account import HOUR_S
from services.autoscaler.usage.accountant import day_and_hour
from services.autoscaler.usage.batches import who_of
from services.autoscaler.usage.store import UsageStore
from services.wire import names, usage
from services.wire.pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from services.wire.status import StatusError, invalid_argument
from services.wire.stream_reader import StoredMessage

DEFAULT_S = 24 * HOUR_S

# Hour, deployment, tenant, batch: the order of the list.
_Place = tuple[str, str, str, str]


async def page(
    store: UsageStore, request: ListUsageRequest, now_s: float
) -> tuple[list[Usage], str]:
    """One page and the token of the next, which is empty on the last page.

    Args:
        store: where usage is kept.
        request: what is asked for.
        now_s: seconds since the epoch.

    Raises:
        StatusError: INVALID_ARGUMENT naming the field, its value and what is legal.
        nats.errors.Error: if NATS cannot be reached.
    """
    size = _size(request.page_size)
    after = _after(request.page_token)
    begin_s, end_s = _range(request, now_s)
    found: list[Usage] = []
    rows = _rows(store, _deployment(request.parent), begin_s, end_s, request.by_batch, after)
    last: _Place | None = None
    async for place, row in rows:
        if len(found) == size and last is not None:
            return found, _token(last)
        found.append(row)
        last = place
    return found, ""


async def _rows(
    store: UsageStore,
    deployment: str,
    begin_s: int,
    end_s: int,
    by_batch: bool,
    after: _Place | None,
) -> AsyncIterator[tuple[_Place, Usage]]:
    """Rows within the hours from `begin_s` to before `end_s`, after a place, in order."""
    first, last = _hour(begin_s), _hour(end_s - 1)
    step_s = HOUR_S if by_batch else 24 * HOUR_S
    at_s = begin_s - begin_s % step_s
    while at_s < end_s:
        day, hour_of_day = day_and_hour(at_s)
        # A day at once of what has few rows, an hour of what may have a thousand a deployment.
        subject = (
            usage.batch_hour(day, hour_of_day, deployment)
            if by_batch
            else usage.hour(day, "*", deployment)
        )
        at_s += step_s
        if after is not None and _hour(at_s - 1) < after[0]:
            continue
        # One that is written while it is read may come twice.
        kept = {_place(message.subject): message for message in await store.read(subject)}
        for place, message in sorted(kept.items()):
            if first <= place[0] <= last and (after is None or place > after):
                yield place, _usage(place, message)


def _place(subject: str) -> _Place:
    words = subject.split(".")
    hour = words[3] + words[4]
    if words[2] == "hour":
        return hour, words[5], "", ""
    return hour, words[5], *who_of(subject)


def _usage(place: _Place, kept: StoredMessage) -> Usage:
    hour, deployment, tenant, batch = place
    said = json.loads(kept.data)
    row = Usage(
        deployment=names.deployment_name(deployment),
        tenant=tenant,
        batch=batch,
        attempt_count=int(said.get("attempt_count", 0)),
    )
    row.hour_time.FromDatetime(datetime.strptime(hour, "%Y%m%d%H"))  # noqa: DTZ007, it is in UTC
    row.replica_time.FromTimedelta(timedelta(seconds=said["replica_s"]))
    row.gpu_time.FromTimedelta(timedelta(seconds=said["gpu_s"]))
    return row


def _range(request: ListUsageRequest, now_s: float) -> tuple[int, int]:
    """Whole hours, in seconds since the epoch, as far back as they are kept."""
    end_s = request.end_time.seconds if request.HasField("end_time") else int(now_s) + 1
    begin_s = (
        request.begin_time.seconds if request.HasField("begin_time") else int(now_s) - DEFAULT_S
    )
    if begin_s > end_s:
        raise invalid_argument(
            f"begin_time = {_iso(begin_s)} is after end_time = {_iso(end_s)}: it must be before"
        )
    kept_s = usage.BATCH_AGE_S if request.by_batch else usage.HOUR_AGE_S
    begin_s = max(begin_s, int(now_s) - kept_s)
    return begin_s - begin_s % HOUR_S, min(end_s, int(now_s) + HOUR_S)


def _deployment(parent: str) -> str:
    if not parent:
        return "*"
    try:
        return names.deployment_id(parent)
    except names.InvalidNameError as error:
        raise invalid_argument(f"parent: {error}") from error


def _size(asked: int) -> int:
    if asked < 0:
        raise invalid_argument(f"page_size = {asked}: it must be 0 or more")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _token(place: _Place) -> str:
    return base64.urlsafe_b64encode("/".join(place).encode()).decode()


def _after(token: str) -> _Place | None:
    if not token:
        return None
    try:
        text = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
        hour, deployment, tenant, batch = text.split("/")
    except (binascii.Error, ValueError):
        raise _bad_token(token) from None
    return hour, deployment, tenant, batch


def _bad_token(token: str) -> StatusError:
    return invalid_argument(
        f"page_token = {names.quoted(token)}: not a token of this list; use next_page_token of the "
        "page before, or leave it empty to begin"
    )


def _hour(time_s: int) -> str:
    return "".join(day_and_hour(time_s))


def _iso(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{time_s} s since the epoch"
