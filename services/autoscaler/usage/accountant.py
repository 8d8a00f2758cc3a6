"""Accounts what replicas hold, while this autoscaler leads: the shell round `account`.

Assignments are looked at whenever they change and every LOOK_S. Who came, left or went is written
at once; how far all others are accounted, every CHECKPOINT_S. An autoscaler that ends in between
loses nothing of those: whoever leads next goes on from what is kept.
"""

import asyncio
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime

import nats.errors
import structlog

from forebay.v1.autoscaler_pb2 import AssignmentSet
from forebay.v1.metrics_pb2 import Snapshot
from services.autoscaler.leadership import Leadership, NotLeadingError
from services.autoscaler.usage.account import HOUR_S, Account, Accounts, Holding, Sum
from services.autoscaler.usage.store import UsageStore
from services.autoscaler.usage.whereabouts import still_there
from services.runtime.clock import Clock
from services.wire import names, usage
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.stored_publisher import NotStoredError
from services.wire.stream_reader import StoredMessage

log = structlog.get_logger()

LOOK_S = 1.0
LEAST_PAUSE_S = 0.2
CHECKPOINT_S = 10.0

EMPTY_AGE_S = 7 * 24 * 3600
"""How long is remembered of a deployment without replicas which hours are complete."""

NODE = "node."


class Accountant:
    """What every deployment's replicas hold."""

    def __init__(
        self,
        link: NatsLink,
        store: UsageStore,
        assignments: KvMirror,
        leadership: Leadership,
        snapshot: Callable[[], Snapshot | None],
        clock: Clock,
    ) -> None:
        """Knows nothing before `run`.

        Args:
            link: to NATS.
            store: where it is kept.
            assignments: what nodes must run, `node.{node}`.
            leadership: only the leader accounts.
            snapshot: what metrics sees now; None if that is not known.
            clock: tells the time.
        """
        self._link = link
        self._store = store
        self._assignments = assignments
        self._leadership = leadership
        self._snapshot = snapshot
        self._clock = clock
        self._term = 0
        self._in_step = False
        self._accounts = Accounts({})
        self._seen: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self._attempted: dict[str, bytes] = {}
        self._checkpoint_s = -math.inf

    async def run(self) -> None:
        """Accounts for ever, while this autoscaler leads."""
        with self._assignments.changes() as changed:
            while True:
                try:
                    async with asyncio.timeout(LOOK_S):
                        await changed.wait()
                except TimeoutError:
                    changed.clear()
                changed.clear()
                if self._link.connected and self._leadership.leading:
                    await self._try_to_look()
                await asyncio.sleep(LEAST_PAUSE_S)

    async def _try_to_look(self) -> None:
        try:
            await self._look()
        except NotLeadingError as error:
            log.info("usage.not_leading", error=str(error))
        except (nats.errors.Error, NotStoredError, TimeoutError) as error:
            # What is kept is not known: it is read before anything else is written.
            self._in_step = False
            log.warning("usage.not_written", error=str(error) or type(error).__name__)

    async def _look(self) -> None:
        if not self._in_step or self._leadership.epoch != self._term:
            await self._get_in_step()
        now_s = self._clock.wall_s()
        self._read_assignments(now_s)
        leaving = self._accounts.leaving()
        if leaving:
            snapshot = self._snapshot()
            self._accounts.look(still_there(snapshot, leaving) if snapshot else {}, now_s)
        elapsed_s = self._clock.monotonic_s() - self._checkpoint_s
        if elapsed_s < CHECKPOINT_S:
            for deployment in sorted(self._accounts.changed):
                await self._write(deployment)
            return
        self._accounts.settle(now_s)
        for deployment, account in sorted(self._accounts.by_deployment.items()):
            await self._write(deployment)
            await self._write_hours(deployment, account, now_s)
        self._checkpoint_s = self._clock.monotonic_s()

    async def _get_in_step(self) -> None:
        """Learns what is kept, and goes on from it unless that is what is here already."""
        epoch = self._leadership.epoch
        kept = {
            message.subject.rpartition(".")[2]: message
            for message in await self._store.read(usage.OPEN)
        }
        ours = epoch == self._term and all(
            self._is_ours(deployment, kept.get(deployment))
            for deployment in kept.keys() | self._sequences.keys()
        )
        if not ours:
            self._accounts = Accounts({name: _account(m) for name, m in kept.items()})
            self._seen, self._revisions = {}, {}
            self._read_assignments(self._clock.wall_s())
            self._accounts.all_assigned(self._revisions)
            self._checkpoint_s = -math.inf
            log.info("usage.taken_over", deployments=len(kept), epoch=epoch)
        self._sequences = {name: message.sequence for name, message in kept.items()}
        self._attempted = {name: message.data for name, message in kept.items()}
        self._term, self._in_step = epoch, True

    def _is_ours(self, deployment: str, kept: StoredMessage | None) -> bool:
        """Whether what is kept was written here: known as written, or tried."""
        if kept is None:
            return self._sequences.get(deployment, 0) == 0
        return kept.sequence == self._sequences.get(deployment) or kept.data == self._attempted.get(
            deployment
        )

    def _read_assignments(self, now_s: float) -> None:
        """Takes note of the sets that changed."""
        entries = self._assignments.entries(NODE)
        for node in self._seen.keys() - entries.keys():
            del self._seen[node]
            self._accounts.assign(node, self._revisions.pop(node, 0), {}, now_s)
        for node, entry in entries.items():
            if self._seen.get(node) == entry.revision:
                continue
            told = AssignmentSet.FromString(entry.value)
            held = {
                assignment.replica_id: (
                    names.deployment_id(assignment.deployment),
                    Holding(node, assignment.resources.gpus),
                )
                for assignment in told.assignments
            }
            self._accounts.assign(node, told.revision, held, now_s)
            self._seen[node], self._revisions[node] = entry.revision, told.revision

    async def _write(self, deployment: str) -> None:
        """Keeps how far a deployment is accounted, unless that is kept already."""
        account = self._accounts.by_deployment[deployment]
        value = account.write()
        if value != self._attempted.get(deployment):
            self._attempted[deployment] = value
            ttl_s = EMPTY_AGE_S if account.empty else None
            based_on = self._sequences.get(deployment, 0)
            self._leadership.fence(self._term)
            self._sequences[deployment] = await self._store.put(
                usage.held(deployment), value, based_on, ttl_s
            )
        self._accounts.changed.discard(deployment)

    async def _write_hours(self, deployment: str, account: Account, now_s: float) -> None:
        """Writes the sums of a deployment's hours, which are kept with the account until then."""
        ended = account.ended(now_s)
        for hour, total in sorted(account.hours.items()):
            subject = usage.hour(*day_and_hour(hour * HOUR_S), deployment)
            value = written(total)
            before = await self._store.last(subject)
            if before is not None and before.data == value:
                continue
            based_on = before.sequence if before is not None else 0
            self._leadership.fence(self._term)
            await self._store.put(subject, value, based_on, usage.HOUR_AGE_S)
        account.seal(ended)


def day_and_hour(time_s: float) -> tuple[str, str]:
    """Day and hour of an instant in UTC, as `20260301` and `07`."""
    at = datetime.fromtimestamp(time_s, UTC)
    return at.strftime("%Y%m%d"), at.strftime("%H")


def written(total: Sum) -> bytes:
    """An hour's sum as it is kept."""
    said = {"replica_s": round(total.replica_s, 3), "gpu_s": round(total.gpu_s, 3)}
    return json.dumps(said, separators=(",", ":")).encode()


def _account(kept: StoredMessage) -> Account:
    try:
        return Account.read(kept.data)
    except ValueError as error:
        log.error("usage.unreadable", subject=kept.subject, error=str(error))
        return Account()
