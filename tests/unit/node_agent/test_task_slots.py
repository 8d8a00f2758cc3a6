"""How requests and tasks share a replica's slots."""

import random

from services.node_agent.credit import EXPIRES_S
from services.node_agent.tasks.slots import (
    DELAY_S,
    REQUESTS_AROUND_S,
    SHORT_EXPIRES_S,
    TASKS_AROUND_S,
    TURN_EXPIRES_S,
    UNFILLED_S,
    Slots,
)


def asked(slots: Slots, now_s: float = 0.0) -> Slots:
    """With all requests asked for that may be."""
    slots.open_requests(slots.requests_wanted(now_s), now_s)
    return slots


def come(slots: Slots) -> None:
    """A request comes."""
    slots.request_came(key=slots.requests, now_s=0)


def leave(slots: Slots) -> None:
    """The youngest request leaves."""
    slots.request_left(key=slots.requests - 1, now_s=0)


def start(slots: Slots, alone: bool = False) -> None:
    """A task is given to Triton."""
    slots.started(key=1000 + slots.running, now_s=0, alone=alone)


def stop(slots: Slots, alone: bool = False) -> None:
    """The youngest task is answered."""
    slots.stopped(key=1000 + slots.running - 1, now_s=0, alone=alone)


def test_without_tasks_requests_have_every_slot() -> None:
    slots = Slots(8)
    assert slots.requests_wanted(0) == 8
    assert slots.open_requests(8, 0) == ("1", EXPIRES_S)


def test_no_task_is_taken_before_it_is_known_that_no_request_waits() -> None:
    slots = Slots(4)
    assert not slots.no_request_waits(now_s=10)
    asked(slots, now_s=10)
    assert not slots.no_request_waits(now_s=10)
    assert slots.no_request_waits(now_s=10 + UNFILLED_S)


def test_no_task_is_taken_while_requests_fill_what_is_asked_for() -> None:
    slots = asked(Slots(2))
    for _ in range(2):
        slots.credit.delivered()
        come(slots)
    assert not slots.no_request_waits(now_s=100)
    leave(slots)
    asked(slots, now_s=200)
    assert not slots.no_request_waits(now_s=200)


def test_tasks_leave_one_slot_of_several_to_requests() -> None:
    assert [Slots(count).room_for_tasks(0) for count in (1, 2, 8)] == [1, 1, 7]
    slots = Slots(8)
    come(slots)
    slots.task_came(0)
    assert slots.room_for_tasks(REQUESTS_AROUND_S) == 5


def run_task(slots: Slots, took_s: float) -> None:
    """One task comes and is answered."""
    slots.task_came(0)
    slots.started(key=1, now_s=0, alone=False)
    slots.stopped(key=1, now_s=took_s, alone=False)
    slots.task_left(took_s)


def test_long_tasks_leave_an_instance_free_while_requests_keep_coming() -> None:
    slots = Slots(8, instances=4)
    assert slots.room_for_tasks(0) == 7
    come(slots)
    leave(slots)
    # Nobody knows yet how long tasks take.
    assert slots.room_for_tasks(0) == 3
    run_task(slots, took_s=1)
    assert slots.room_for_tasks(0) == 3
    slots.task_came(0)
    assert slots.room_for_tasks(0) == 2
    assert slots.room_for_tasks(REQUESTS_AROUND_S) == 6


def test_of_a_single_instance_long_tasks_have_one_place_while_requests_keep_coming() -> None:
    slots = Slots(8)
    run_task(slots, took_s=1)
    come(slots)
    leave(slots)
    assert slots.room_for_tasks(0) == 1


def test_short_tasks_fill_the_slots_as_far_as_a_request_may_wait_for_them() -> None:
    slots = Slots(32, instances=2)
    run_task(slots, took_s=DELAY_S / 10)
    come(slots)
    leave(slots)
    assert slots.room_for_tasks(0) == 20
    for _ in range(40):
        run_task(slots, took_s=DELAY_S / 1000)
    assert slots.room_for_tasks(0) == 31


def test_few_requests_are_asked_for_while_there_are_tasks_and_not_for_long() -> None:
    slots = Slots(16)
    slots.task_came(0)
    assert slots.requests_wanted(0) == slots.asked_beside_tasks == 2
    assert slots.open_requests(2, 0)[1] == SHORT_EXPIRES_S
    assert slots.requests_wanted(0) == 0
    slots.task_left(1)
    assert slots.requests_wanted(1.1) == 0
    assert slots.requests_wanted(1 + TASKS_AROUND_S) == 14


def test_a_freed_slot_is_offered_to_requests_before_tasks() -> None:
    slots, told = Slots(2), []
    slots.pull_requests = lambda: told.append("requests")
    slots.pull_tasks = lambda: told.append("tasks")
    slots.task_came(0)
    slots.task_left(0)
    come(slots)
    leave(slots)
    assert told == ["requests", "tasks"] * 2


def test_never_more_inside_than_slots_and_the_few_asked_for() -> None:
    """Over random arrivals, once what was asked for before the first task has run out."""
    for seed in range(50):
        chance = random.Random(seed)
        slots = Slots(chance.choice((1, 2, 3, 8, 32)))
        slots.task_came(0)
        size = slots.room_for_tasks(0) + 1 + slots.kept_for_requests
        for step in range(400):
            asked(slots, now_s=step)
            deed = chance.randrange(4)
            if deed == 0 and slots.credit.on_the_way:
                slots.credit.delivered()
                come(slots)
            elif deed == 1 and slots.room_for_tasks(0) and slots.no_request_waits(step + 1):
                slots.task_came(step)
            elif deed == 2 and slots.requests:
                leave(slots)
            elif deed == 3 and slots.tasks > 1:
                slots.task_left(step)
            inside = slots.requests + slots.tasks
            assert inside + slots.credit.on_the_way <= size + slots.asked_beside_tasks


def test_a_task_that_runs_alone_waits_for_all_others_and_stops_what_comes() -> None:
    slots = Slots(4)
    for _ in range(2):
        slots.task_came(0)
    start(slots)
    slots.wait_alone()
    assert not slots.may_start(alone=True)
    assert slots.room_for_tasks(0) == 0
    # Requests go on while other tasks run.
    assert slots.requests_wanted(0) == 1
    asked(slots)
    stop(slots)
    slots.task_left(0)
    assert slots.requests_wanted(0) == 0
    assert not slots.may_start(alone=True)
    slots.credit.lost()
    assert slots.may_start(alone=True)
    start(slots, alone=True)
    assert not slots.may_start(alone=False)
    assert slots.requests_wanted(0) == 0
    stop(slots, alone=True)
    slots.alone_over()
    slots.task_left(0)
    assert slots.requests_wanted(100) == 4
    assert slots.room_for_tasks(0) == 3


def test_two_that_run_alone_run_one_after_the_other() -> None:
    slots = Slots(4)
    for _ in range(2):
        slots.task_came(0)
        slots.wait_alone()
    assert slots.may_start(alone=True)
    start(slots, alone=True)
    assert not slots.may_start(alone=True)
    stop(slots, alone=True)
    slots.alone_over()
    slots.task_left(0)
    # Between them a few requests may come, for a moment.
    assert not slots.may_start(alone=True)
    assert slots.requests_wanted(0) == 1
    assert slots.open_requests(1, 0)[1] == TURN_EXPIRES_S
    assert slots.requests_wanted(0) == 0
    slots.credit.delivered()
    come(slots)
    assert not slots.may_start(alone=True)
    leave(slots)
    assert slots.requests_wanted(0) == 0
    assert slots.may_start(alone=True)
    assert slots.room_for_tasks(0) == 0


def test_the_first_word_of_a_death_says_how_many_were_inside() -> None:
    slots = Slots(4)
    come(slots)
    for _ in range(2):
        slots.task_came(0)
        start(slots)
    slots.note_loss()
    stop(slots)
    leave(slots)
    slots.note_loss()
    assert slots.lost_together == 3


def test_what_waits_for_its_turn_was_not_inside() -> None:
    slots = Slots(4)
    for _ in range(2):
        slots.task_came(0)
    start(slots, alone=True)
    slots.note_loss()
    assert slots.lost_together == 1
