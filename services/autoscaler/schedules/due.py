"""What is to be done about the slots of a schedule. Pure: time is an argument.

A schedule knows the first of its slots that nobody has decided about. That mark only grows: a wall
clock that jumps back, another leader or a changed expression brings no slot back.
"""

from dataclasses import dataclass

from forebay.v1.schedule_pb2 import Schedule
from services.wire.cron import Cron

LATE_S = 60
"""A slot that nobody fired within so many seconds of its time is missed. Slots are at least as far
apart, so that no two are on time at once."""

MAX_COUNTED = 1000
"""Missed slots are counted up to this; more are "1000 or more"."""


@dataclass(frozen=True, slots=True)
class Due:
    """What became due since anybody looked.

    Attributes:
        slot_s: the last slot by now, in seconds since the epoch; those before it are missed.
        fires: whether a task is to be submitted for it.
        missed: slots that nobody fired in time, `slot_s` among them if it is late.
        first_s: the earliest of them, or `slot_s`.
        last_missed_s: the latest of them; None if there are none.
        next_s: the first slot after `slot_s`; None if none ever comes.
    """

    slot_s: int
    fires: bool
    missed: int
    first_s: int
    last_missed_s: int | None
    next_s: int | None


def look(
    cron: Cron, undecided_s: int, missed_policy: Schedule.MissedPolicy, now_s: float
) -> Due | None:
    """What is due by now; None if the first slot nobody has decided about is yet to come.

    Of many missed slots only the last is looked at; the others are counted.

    Args:
        cron: of the schedule.
        undecided_s: the first slot nobody has decided about.
        missed_policy: of the schedule.
        now_s: seconds since the epoch.
    """
    if now_s < undecided_s:
        return None
    # The mark may stem from another version's reading of the expression: it is a slot all the same.
    latest_s = cron.latest(undecided_s, now_s) or undecided_s
    on_time = now_s - latest_s < LATE_S
    missed = 0
    last_missed_s = None if on_time else latest_s
    if latest_s > undecided_s:
        # With the first one, which the count leaves out, and without the last if it is on time.
        counted = 1 + cron.count(undecided_s, latest_s, MAX_COUNTED)
        missed = min(MAX_COUNTED, counted - on_time)
        if on_time:
            last_missed_s = cron.latest(undecided_s, latest_s - 1) or undecided_s
    elif not on_time:
        missed = 1
    return Due(
        slot_s=latest_s,
        fires=on_time or missed_policy == Schedule.MISSED_POLICY_RUN_ONCE,
        missed=missed,
        first_s=undecided_s,
        last_missed_s=last_missed_s,
        next_s=cron.next_after(latest_s),
    )


def next_undecided_s(cron: Cron, now_s: float, decided_s: float | None) -> int | None:
    """The first slot to come for a schedule that begins, or goes on, now.

    Args:
        cron: of the schedule.
        now_s: seconds since the epoch.
        decided_s: the last slot that was decided about, if any was: none up to it comes again,
            even if the wall clock has jumped back since.
    """
    return cron.next_after(now_s if decided_s is None else max(now_s, decided_s))
