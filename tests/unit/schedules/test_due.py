"""What becomes of slots: on time, missed, once for many, and none twice."""

import random

from forebay.v1.schedule_pb2 import Schedule
from services.autoscaler.schedules import due
from services.autoscaler.schedules.due import Due
from services.wire.cron import parse

SKIP = Schedule.MISSED_POLICY_SKIP
RUN_ONCE = Schedule.MISSED_POLICY_RUN_ONCE
HOURLY = parse("0 * * * *")
MINUTELY = parse("* * * * *")
H = 3600


def test_nothing_is_due_before_its_time() -> None:
    assert due.look(HOURLY, H, SKIP, H - 0.001) is None
    assert due.look(HOURLY, H, RUN_ONCE, 0.0) is None


def test_a_slot_fires_within_a_minute_of_its_time() -> None:
    on_time = Due(H, fires=True, missed=0, first_s=H, last_missed_s=None, next_s=2 * H)
    assert due.look(HOURLY, H, SKIP, H) == on_time
    assert due.look(HOURLY, H, SKIP, H + 59.9) == on_time


def test_a_late_slot_is_missed() -> None:
    assert due.look(HOURLY, H, SKIP, H + 60) == Due(H, False, 1, H, H, 2 * H)
    assert due.look(HOURLY, H, RUN_ONCE, H + 60) == Due(H, True, 1, H, H, 2 * H)


def test_many_missed_slots_are_one_decision() -> None:
    assert due.look(HOURLY, H, SKIP, 5.5 * H) == Due(5 * H, False, 5, H, 5 * H, 6 * H)
    assert due.look(HOURLY, H, RUN_ONCE, 5.5 * H) == Due(5 * H, True, 5, H, 5 * H, 6 * H)


def test_a_slot_on_time_fires_whatever_was_missed_before_it() -> None:
    for policy in (SKIP, RUN_ONCE):
        assert due.look(HOURLY, H, policy, 5 * H + 1) == Due(5 * H, True, 4, H, 4 * H, 6 * H)


def test_two_minutes_in_a_row_are_not_both_on_time() -> None:
    assert due.look(MINUTELY, 60, SKIP, 120) == Due(120, True, 1, 60, 60, 180)


def test_years_of_missed_slots_are_counted_to_a_bound() -> None:
    found = due.look(MINUTELY, 60, SKIP, 10 * 365 * 24 * H + 30)
    assert found is not None
    assert found.missed == due.MAX_COUNTED
    assert found.slot_s == 10 * 365 * 24 * H
    assert found.fires


def test_a_mark_that_is_no_slot_any_more_is_decided_all_the_same() -> None:
    assert due.look(HOURLY, H + 7, SKIP, H + 8) == Due(H + 7, True, 0, H + 7, None, 2 * H)


def test_an_expression_that_comes_no_more_has_no_next_slot() -> None:
    leap = parse("0 0 29 2 *")
    found = due.look(leap, 68_169_600, SKIP, 68_169_601)
    assert found is not None
    assert found.next_s == 194_400_000


def test_whoever_goes_on_begins_after_now_and_after_what_was_decided() -> None:
    assert due.next_undecided_s(HOURLY, 1.5 * H, None) == 2 * H
    assert due.next_undecided_s(HOURLY, 1.5 * H, H) == 2 * H
    # The wall clock has jumped back by hours.
    assert due.next_undecided_s(HOURLY, 1.5 * H, 7 * H) == 8 * H


def test_no_slot_is_decided_twice_however_the_clock_wanders() -> None:
    dice = random.Random(7)
    for cron in (HOURLY, MINUTELY, parse("30 2 * * *", "Europe/Berlin")):
        # Round the end of summer time 2026.
        now_s = 1_792_800_000.0
        undecided_s = cron.next_after(now_s)
        fired: list[int] = []
        decided: list[int] = []
        for _ in range(2000):
            now_s += dice.choice([0.3, 20, 45, 300, 5000, -400, -4000])
            assert undecided_s is not None
            found = due.look(cron, undecided_s, dice.choice([SKIP, RUN_ONCE]), now_s)
            if found is None:
                continue
            decided.append(found.slot_s)
            if found.fires:
                fired.append(found.slot_s)
            assert found.next_s is not None
            assert found.next_s > found.slot_s >= undecided_s
            undecided_s = found.next_s
        assert sorted(set(decided)) == decided
        assert fired
