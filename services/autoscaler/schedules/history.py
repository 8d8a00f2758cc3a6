"""What is kept of a schedule's slots: the last runs, and the first slot yet to be decided. Pure.

`next_time` of a kept schedule is that slot. A run without an action is one that was decided on and
whose task may or may not have been stored: it is written before the task is, and read by whoever
goes on after a crash.
"""

from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from services.autoscaler.schedules.due import MAX_COUNTED, Due
from services.wire.cron import Cron

MAX_RUNS = 20

BEGUN = ScheduleRun.ACTION_UNSPECIFIED
"""Of a run whose task may or may not have been stored."""


def undecided_s(schedule: Schedule) -> int | None:
    """The first slot that nobody has decided about; None while the schedule is paused."""
    if schedule.paused or not schedule.HasField("next_time"):
        return None
    return int(schedule.next_time.seconds)


def set_undecided(schedule: Schedule, slot_s: int | None) -> None:
    """Says which slot is the next to be decided; None: there is none."""
    if slot_s is None:
        schedule.ClearField("next_time")
    else:
        schedule.next_time.FromSeconds(slot_s)


def decided_s(schedule: Schedule) -> int | None:
    """The last slot that was decided about, as far as runs are kept."""
    slots = [run.slot_time.seconds for run in schedule.runs if run.HasField("slot_time")]
    return max(slots, default=None)


def begun(schedule: Schedule) -> ScheduleRun | None:
    """The run whose task may or may not have been stored; None if there is none."""
    return next((run for run in schedule.runs if run.action == BEGUN), None)


def add(schedule: Schedule, run: ScheduleRun) -> None:
    """Puts a run before all others; the oldest go, but never the last one of a slot."""
    runs = [run, *schedule.runs]
    kept = runs[:MAX_RUNS]
    if not any(r.HasField("slot_time") for r in kept):
        of_slots = [r for r in runs[MAX_RUNS:] if r.HasField("slot_time")]
        kept[-1:] = of_slots[:1] or kept[-1:]
    copies = []
    for each in kept:
        copied = ScheduleRun()
        copied.CopyFrom(each)
        copies.append(copied)
    schedule.ClearField("runs")
    schedule.runs.extend(copies)


def run_of(
    slot_s: int | None,
    now_s: float,
    action: ScheduleRun.Action,
    task: str = "",
    message: str = "",
) -> ScheduleRun:
    """A run as it is kept.

    Args:
        slot_s: its slot; None if it is by hand.
        now_s: when it is decided.
        action: what is decided.
        task: resource name of its task, if it has one.
        message: why it has none.
    """
    run = ScheduleRun(action=action, task=task, message=message)
    run.fire_time.FromNanoseconds(int(now_s * 1e9))
    if slot_s is not None:
        run.slot_time.FromSeconds(slot_s)
    return run


def decide(schedule: Schedule, cron: Cron, due: Due, now_s: float) -> None:
    """Takes note of what is due: what was missed, and that everything up to `slot_s` is decided.

    What becomes of `slot_s` itself is for the caller to add, if it fires.
    """
    set_undecided(schedule, due.next_s)
    if not due.missed or due.last_missed_s is None:
        return
    if due.fires and due.last_missed_s == due.slot_s:
        # The one task that stands for all of them is told where it is submitted.
        return
    message = missed_sentence(cron, due)
    if due.fires:
        message += f"; the task of {_clock(cron, due.slot_s)} stands for them too"
    action = ScheduleRun.ACTION_SKIPPED_MISSED
    add(schedule, run_of(due.last_missed_s, now_s, action, message=message))


def missed_sentence(cron: Cron, due: Due) -> str:
    """What was missed, for a person; empty if nothing was."""
    if not due.missed or due.last_missed_s is None:
        return ""
    first, last = _clock(cron, due.first_s), _clock(cron, due.last_missed_s)
    if due.missed == 1:
        return f"nobody fired the slot of {first} within a minute"
    count = f"{MAX_COUNTED} or more" if due.missed >= MAX_COUNTED else str(due.missed)
    return f"nobody fired {count} slots from {first} to {last} within a minute"


def _clock(cron: Cron, slot_s: int) -> str:
    return cron.local(slot_s).strftime("%Y-%m-%d %H:%M %Z")
