"""Who leads, decided from what is seen of the lease and from this process's own clock.

Pure: `look` says what to do now; whoever does it tells the outcome with `renewed`, `taken` or
`refused`. Instants are seconds of one process's monotonic clock. Instants of two processes are
never compared: a standby measures how long it has itself seen no change.

| state | seen | does |
|---|---|---|
| Standby | nobody holds the lease, or it holds it itself from before | Take |
| Standby | another holds it; unchanged for TAKE_AFTER_S | Take |
| Standby | another holds it and renews it | Wait |
| Leading | its own; renewed less than RENEW_INTERVAL_S ago | Wait |
| Leading | its own; renewed longer ago | Renew |
| Leading | not renewed for STEP_DOWN_AFTER_S, or not its own | StepDown |
"""

from dataclasses import dataclass, replace

RENEW_INTERVAL_S = 2.0

ATTEMPT_TIMEOUT_S = 2.0
"""How long one attempt to renew may take, so that a lost answer leaves time for a second one."""

STEP_DOWN_AFTER_S = 6.0
"""How long a renewal holds, from the start of the attempt: it counts as written no earlier."""

TAKE_AFTER_S = 8.0
"""How long a standby must have seen no change. It saw the last one later than its writer began to
write it, so a leader has stepped down by itself STEP_DOWN_AFTER_S after that. The difference allows
for clocks that run at different speeds, by up to a quarter."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The lease as it was read.

    Attributes:
        holder: id of the autoscaler that holds it; empty if nobody does.
        address: where that one listens, as host:port.
        epoch: its term; of the last one if nobody holds it; 0 if there never was one.
        renewal: how often it was renewed.
        revision: of the key, for compare-and-set; 0 if there is none.
    """

    holder: str
    address: str
    epoch: int
    renewal: int
    revision: int


@dataclass(frozen=True, slots=True)
class Standby:
    """Another one leads, or nobody.

    Attributes:
        seen_revision: the last revision seen; −1 if none was.
        unchanged_since_s: since when it has been seen, without an interruption of the connection.
        highest_epoch: the highest term this process has seen; a lost store must not lower it.
    """

    seen_revision: int = -1
    unchanged_since_s: float = 0.0
    highest_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Leading:
    """This process leads.

    Attributes:
        epoch: its term.
        renewed_s: when the attempt began that renewed the lease last.
    """

    epoch: int
    renewed_s: float


State = Standby | Leading


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after `for_s` seconds, or when the lease changes."""

    for_s: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Write the lease again with a compare-and-set on `revision`, within `timeout_s` seconds."""

    epoch: int
    renewal: int
    revision: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Take:
    """Write the lease with the new term `epoch` and a compare-and-set on `revision`."""

    epoch: int
    revision: int
    timeout_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class StepDown:
    """Stop acting as the leader at once; the state is Standby already."""

    epoch: int
    reason: str


Action = Wait | Renew | Take | StepDown


def leads(state: State, now_s: float) -> bool:
    """Whether nobody else can have taken the lease by now."""
    return isinstance(state, Leading) and now_s - state.renewed_s < STEP_DOWN_AFTER_S


def look(
    state: State, now_s: float, entry: Entry, own_id: str, connected: bool
) -> tuple[State, Action]:
    """What follows from what is seen.

    Args:
        state: the state so far.
        now_s: the time.
        entry: the lease as it was read last; may be older than the lease is.
        own_id: id of this process.
        connected: whether changes of the lease can be seen and written at all.

    Returns:
        The new state, and what to do. With anything but Wait, look again right after it.
    """
    if isinstance(state, Leading):
        return _look_leading(state, now_s, entry, own_id, connected)
    return _look_standby(state, now_s, entry, own_id, connected)


def renewed(state: State, started_s: float) -> State:
    """The lease was renewed by an attempt that began at `started_s`."""
    return replace(state, renewed_s=started_s) if isinstance(state, Leading) else state


def taken(action: Take, started_s: float) -> State:
    """The lease was taken by an attempt that began at `started_s`."""
    return Leading(action.epoch, started_s)


def refused(state: State, now_s: float) -> State:
    """Someone else wrote the lease first: whoever it was is alive now."""
    return replace(state, unchanged_since_s=now_s) if isinstance(state, Standby) else state


def _look_leading(
    state: Leading, now_s: float, entry: Entry, own_id: str, connected: bool
) -> tuple[State, Action]:
    since_renewal_s = now_s - state.renewed_s
    reason = ""
    if entry.holder != own_id or entry.epoch != state.epoch:
        by = f"{_who(entry)} in term {entry.epoch}" if entry.holder else "nobody"
        reason = f"the lease is held by {by}"
    elif since_renewal_s >= STEP_DOWN_AFTER_S:
        reason = f"the lease could not be renewed for {STEP_DOWN_AFTER_S:g} s"
    if reason:
        standby = Standby(entry.revision, now_s, max(state.epoch, entry.epoch))
        return standby, StepDown(state.epoch, reason)
    left_s = STEP_DOWN_AFTER_S - since_renewal_s
    if not connected:
        return state, Wait(left_s)
    if since_renewal_s < RENEW_INTERVAL_S:
        return state, Wait(RENEW_INTERVAL_S - since_renewal_s)
    timeout_s = min(ATTEMPT_TIMEOUT_S, left_s)
    return state, Renew(state.epoch, entry.renewal + 1, entry.revision, timeout_s)


def _look_standby(
    state: Standby, now_s: float, entry: Entry, own_id: str, connected: bool
) -> tuple[State, Action]:
    if entry.revision != state.seen_revision or not connected:
        # While nothing can be seen, seeing no change means nothing.
        state = replace(state, seen_revision=entry.revision, unchanged_since_s=now_s)
    state = replace(state, highest_epoch=max(state.highest_epoch, entry.epoch))
    if not connected:
        return state, Wait(RENEW_INTERVAL_S)
    unchanged_s = now_s - state.unchanged_since_s
    if not entry.holder:
        reason = "nobody holds the lease"
    elif entry.holder == own_id:
        reason = "the lease is still its own, and nobody else has taken it"
    elif unchanged_s >= TAKE_AFTER_S:
        reason = f"{_who(entry)} has not renewed the lease for {TAKE_AFTER_S:g} s"
    else:
        return state, Wait(TAKE_AFTER_S - unchanged_s)
    return state, Take(state.highest_epoch + 1, entry.revision, ATTEMPT_TIMEOUT_S, reason)


def _who(entry: Entry) -> str:
    return f"{entry.holder} at {entry.address}"
