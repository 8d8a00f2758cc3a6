"""This process's part in leading: it competes for the lease, keeps it, and knows when it lost it.

`lease` decides; this module reads, writes and tells. docs/adr/0011-leadership-lease.md says why a
leader that was paused at any point can overwrite nothing its successor has decided.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import nats.errors
import nats.js.errors
import structlog

from forebay.v1.autoscaler_pb2 import AssignmentSet
from forebay.v1.autoscaler_pb2 import Leadership as Kept
from services.autoscaler import lease
from services.runtime.clock import Clock
from services.runtime.tasks import run_until
from services.wire.kv_mirror import KvEntry, KvMirror
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

RETRY_S = 0.25
RELEASE_TIMEOUT_S = 2.0
RELEASE_ATTEMPTS = 3

LEADER = "leader"
NODE = "node."
_FORMER_EPOCH = "epoch"


class NotLeadingError(RuntimeError):
    """This process does not lead, or not in the term in which something was decided."""


class Leadership:
    """The lease as this process holds it or waits for it.

    Attributes:
        holder: this process's own id, new with each process.
        address: where it listens, as host:port; told to agents that ask a standby.
    """

    def __init__(
        self, link: NatsLink, assignments: KvMirror, clock: Clock, address: str, holder: str = ""
    ) -> None:
        """Stands by until `run` has taken the lease.

        Args:
            link: the connection that `assignments` uses.
            assignments: the bucket that has the lease, and every set that a new leader seals.
            clock: tells when a lease is over.
            address: where this autoscaler listens, as host:port.
            holder: its id; by default a random one.
        """
        self.holder = holder or secrets.token_hex(8)
        self.address = address
        self._link = link
        self._assignments = assignments
        self._clock = clock
        self._lease: lease.State = lease.Standby()
        self._sealed_epoch = 0
        self._taken = asyncio.Event()
        self._listeners: set[asyncio.Event] = set()
        self._other = ""

    @property
    def leading(self) -> bool:
        """Whether this process surely leads now; asked of the clock each time."""
        return self._holds() and self._sealed_epoch == self._held_epoch()

    @property
    def epoch(self) -> int:
        """The term in which this process leads; 0 if it does not."""
        return self._sealed_epoch if self.leading else 0

    @property
    def leader_address(self) -> str:
        """Where another one that holds the lease listens, as host:port; empty if none does."""
        entry = self._entry()
        return "" if entry.holder == self.holder else entry.address

    def fence(self, epoch: int = 0) -> None:
        """To be called right before each write that only the leader may make.

        Args:
            epoch: the term in which it was decided; 0 for whichever it is.

        Raises:
            NotLeadingError: if this process does not lead, or in another term.
        """
        current = self.epoch
        if not current:
            raise NotLeadingError("this autoscaler does not lead")
        if epoch and epoch != current:
            raise NotLeadingError(f"this was decided in term {epoch}; this is term {current}")

    @contextmanager
    def changes(self, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An event that is set whenever this process begins or ceases to lead.

        Whoever waits for it clears it. It is set to begin with.

        Args:
            event: used in place of a new one, to wait for several things at once.
        """
        event = event or asyncio.Event()
        event.set()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)

    async def wait_changed(self) -> None:
        """Returns when this process next begins or ceases to lead."""
        with self.changes() as changed:
            changed.clear()
            await changed.wait()

    async def run(self) -> None:
        """Competes for the lease and keeps it, for ever."""
        await run_until(asyncio.Event(), lease=self._compete(), seal=self._seal_terms())

    async def release(self) -> None:
        """Gives the lease up, so that a standby takes it at once; nothing if it is not held.

        To be called after `run` has ended and nothing is written any more.
        """
        self._lease = lease.Standby()
        self._announce()
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._write_released()
        except (nats.errors.Error, TimeoutError) as error:
            # Standbys wait for it to run out, as after a crash.
            log.warning("leadership.not_released", holder=self.holder, error=_text(error))

    async def _write_released(self) -> None:
        for _ in range(RELEASE_ATTEMPTS):
            entry = self._entry()
            if entry.holder != self.holder:
                return
            released = Kept(epoch=entry.epoch, renewal=entry.renewal + 1)
            try:
                await self._write(released, entry.revision)
            except nats.js.errors.KeyWrongLastSequenceError:
                # A renewal that was cancelled has been written after all.
                await self._assignments.reload()
                continue
            log.info(
                "leadership.released", epoch=entry.epoch, holder=self.holder, reason="it stops"
            )
            return

    async def _compete(self) -> None:
        with self._assignments.changes() as changed:
            while True:
                changed.clear()
                action = self._look()
                match action:
                    case lease.Wait():
                        try:
                            async with asyncio.timeout(action.for_s):
                                await changed.wait()
                        except TimeoutError:
                            continue
                    case lease.StepDown():
                        log.warning(
                            "leadership.lost",
                            epoch=action.epoch,
                            holder=self.holder,
                            reason=action.reason,
                        )
                        self._announce()
                    case lease.Renew() | lease.Take():
                        await self._attempt(action)

    def _look(self) -> lease.Action:
        connected = self._assignments.known and bool(self._link.client.is_connected)
        entry = self._entry()
        now_s = self._clock.monotonic_s()
        self._lease, action = lease.look(self._lease, now_s, entry, self.holder, connected)
        other = entry.holder if entry.holder != self.holder else ""
        if other and other != self._other:
            log.info(
                "leadership.other", epoch=entry.epoch, holder=entry.holder, address=entry.address
            )
        self._other = other
        return action

    async def _attempt(self, action: lease.Renew | lease.Take) -> None:
        """Renews or takes the lease, or waits a little after it could not."""
        renewal = action.renewal if isinstance(action, lease.Renew) else 0
        kept = Kept(holder=self.holder, address=self.address, epoch=action.epoch, renewal=renewal)
        started_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(action.timeout_s):
                await self._write(kept, action.revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            await self._beaten(action)
            return
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("leadership.not_written", epoch=action.epoch, error=_text(error))
            await asyncio.sleep(RETRY_S)
            return
        if isinstance(action, lease.Renew):
            self._lease = lease.renewed(self._lease, started_s)
            return
        self._lease = lease.taken(action, started_s)
        self._taken.set()
        log.info(
            "leadership.taken",
            epoch=action.epoch,
            holder=self.holder,
            address=self.address,
            reason=action.reason,
        )

    async def _beaten(self, action: lease.Renew | lease.Take) -> None:
        """Reads what was written instead: another's lease, or an own attempt thought lost."""
        log.info("leadership.beaten", epoch=action.epoch, holder=self.holder)
        self._lease = lease.refused(self._lease, self._clock.monotonic_s())
        try:
            async with asyncio.timeout(action.timeout_s):
                await self._assignments.reload()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("leadership.not_read", error=_text(error))
            await asyncio.sleep(RETRY_S)

    async def _seal_terms(self) -> None:
        """Seals all assignments after each take-over; only then this process leads."""
        while True:
            await self._taken.wait()
            self._taken.clear()
            epoch = self._held_epoch()
            while self._holds() and self._held_epoch() == epoch:
                try:
                    await seal(self._assignments, epoch, self._check_held)
                except (NotLeadingError, nats.errors.Error, TimeoutError) as error:
                    log.warning("leadership.not_sealed", epoch=epoch, error=_text(error))
                    await asyncio.sleep(RETRY_S)
                else:
                    self._sealed_epoch = epoch
                    log.info("leadership.sealed", epoch=epoch, holder=self.holder)
                    self._announce()
                    break

    async def _write(self, kept: Kept, revision: int) -> KvEntry:
        return await self._assignments.put(LEADER, kept.SerializeToString(), revision)

    def _entry(self) -> lease.Entry:
        found = self._assignments.get(LEADER)
        if found is None:
            return lease.Entry("", "", self._former_epoch(), 0, 0)
        kept = Kept.FromString(found.value)
        return lease.Entry(kept.holder, kept.address, kept.epoch, kept.renewal, found.revision)

    def _former_epoch(self) -> int:
        """The highest term that is to be found where there is no lease."""
        # Autoscalers that knew no lease counted their terms here.
        former = self._assignments.get(_FORMER_EPOCH)
        sets = self._assignments.entries(NODE).values()
        terms: list[int] = [AssignmentSet.FromString(entry.value).epoch for entry in sets]
        return max(int(former.value) if former else 0, *terms, 0)

    def _holds(self) -> bool:
        return lease.leads(self._lease, self._clock.monotonic_s())

    def _held_epoch(self) -> int:
        return self._lease.epoch if isinstance(self._lease, lease.Leading) else 0

    def _check_held(self, epoch: int) -> None:
        if not self._holds() or self._held_epoch() != epoch:
            raise NotLeadingError(f"the lease of term {epoch} is over")

    def _announce(self) -> None:
        for event in self._listeners:
            event.set()


async def seal(
    assignments: KvMirror, epoch: int, check_held: Callable[[int], None] | None = None
) -> None:
    """Writes every node's set again, unchanged, under a new term.

    Afterwards each key has a revision that no former leader has seen, so a write that one of them
    began before, however late it comes, is refused by compare-and-set.

    Args:
        assignments: the bucket; read anew first.
        epoch: the term that was just taken.
        check_held: raises NotLeadingError when the term is over; called before each write.

    Raises:
        NotLeadingError: if a set has a higher term, or `check_held` says so.
        nats.errors.Error: if NATS cannot be reached; can be called again.
    """
    while True:
        await assignments.reload()
        try:
            for node, entry in assignments.entries(NODE).items():
                held = AssignmentSet.FromString(entry.value)
                if held.epoch > epoch:
                    raise NotLeadingError(f"the set of {node} is of term {held.epoch} already")
                if held.epoch == epoch:
                    continue
                held.epoch = epoch
                if check_held is not None:
                    check_held(epoch)
                await assignments.put(NODE + node, held.SerializeToString(), entry.revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            # The former leader was faster: what it wrote is sealed next.
            log.info("leadership.sealing_again", epoch=epoch)
            continue
        return


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
