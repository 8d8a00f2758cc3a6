"""What is known of tasks, from what JetStream says: unknown is never zero, and zero is known."""

import pytest

from services.metrics.arrivals import QueueState
from services.metrics.dead_tasks import MAX_REMEMBERED, DeadTasks
from services.metrics.task_lanes import EVERY_PRIORITY, QUIET_FOR_S, Lane, TaskLanes, parse

STALE_S = 5.0


def lanes(*deployments: str, messages: int = 0, consumers: tuple[str, ...] = ()) -> TaskLanes:
    """Lanes at 100 s, with all that was asked until then answered."""
    made = TaskLanes(30.0)
    made.declare(set(deployments))
    made.told_stream(100.0, messages)
    made.told_consumers(set(consumers))
    return made


def counts(known: TaskLanes, now_s: float, deployment: str = "add") -> tuple[int, int] | None:
    found = known.signals(now_s, deployment, STALE_S)
    return None if found is None else (found.queued, found.ongoing)


def tell(
    known: TaskLanes, now_s: float, priority: int = 2, queued: int = 0, ongoing: int = 0
) -> Lane:
    lane = known.lane("add", priority)
    assert lane is not None
    lane.asked_s = now_s
    known.told_lane(now_s, lane, QueueState("1", queued, ongoing, ongoing, ongoing, 0))
    return lane


def test_nothing_is_known_before_anything_is_told() -> None:
    known = TaskLanes(30.0)
    known.declare({"add"})
    assert counts(known, 0.0) is None
    known.told_stream(0.0, 5)
    assert counts(known, 0.0) is None


def test_an_empty_stream_says_that_nobody_has_a_task_for_as_long_as_that_is_fresh() -> None:
    known = TaskLanes(30.0)
    known.declare({"add"})
    known.told_stream(100.0, 0)
    assert counts(known, 101.0) == (0, 0)
    assert counts(known, 105.1) is None
    known.told_stream(105.0, 0)
    assert counts(known, 105.1) == (0, 0)


def test_lanes_of_all_priorities_are_one_load_as_old_as_the_oldest() -> None:
    known = lanes("add", messages=7, consumers=("add_1", "add_2", "add_3"))
    for doubt in known.doubts:
        known.told_strays(*doubt, any_there=False)
    tell(known, 100.0, 1, queued=1, ongoing=2)
    tell(known, 101.0, 2, queued=4)
    assert counts(known, 101.0) is None
    tell(known, 102.0, 3)
    found = known.signals(103.0, "add", STALE_S)
    assert found is not None
    assert (found.queued, found.ongoing, found.age_s) == (5, 2, 3.0)
    assert counts(known, 105.1) is None


def test_a_quiet_lane_is_empty_while_the_stream_answers_and_nobody_speaks_of_a_task() -> None:
    known = lanes("add", messages=7, consumers=("add_1", "add_2", "add_3"))
    quiet = [tell(known, 100.0, priority) for priority in (1, 2, 3)]
    known.told_stream(119.0, 7)
    found = known.signals(120.0, "add", STALE_S)
    assert found is not None
    assert (found.queued, found.ongoing, found.age_s) == (0, 0, 1.0)
    assert counts(known, 124.1) is None
    known.told_stream(124.0, 7)
    quiet[1].heard_s = 124.0
    assert counts(known, 124.1) is None
    tell(known, 124.2, 2, queued=1)
    assert counts(known, 124.2) == (1, 0)
    known.told_stream(100.0 + QUIET_FOR_S, 7)
    tell(known, 100.0 + QUIET_FOR_S, 2)
    assert counts(known, 100.0 + QUIET_FOR_S) == (0, 0)
    assert counts(known, 100.1 + QUIET_FOR_S) is None


def test_without_a_consumer_nothing_waits_once_the_stream_was_asked_for_strays() -> None:
    known = lanes("add", "other", messages=3, consumers=("other_2",))
    assert sorted(known.doubts) == [("add", EVERY_PRIORITY), ("other", 1), ("other", 3)]
    assert counts(known, 100.0) is None
    known.told_strays("add", EVERY_PRIORITY, any_there=False)
    assert counts(known, 100.0) == (0, 0)
    assert counts(known, 105.1) is None
    known.told_stream(105.0, 3)
    assert counts(known, 105.1) == (0, 0)


def test_that_the_stream_was_empty_says_nothing_of_a_deployment_that_came_later() -> None:
    known = lanes()
    known.declare({"add"})
    known.told_stream(101.0, 2)
    assert known.doubts == [("add", EVERY_PRIORITY)]
    assert counts(known, 101.0) is None


def test_strays_make_a_deployment_unknown_until_their_consumer_is_there_again() -> None:
    known = lanes("add", messages=3)
    known.told_strays("add", EVERY_PRIORITY, any_there=True)
    assert sorted(known.doubts) == [("add", 1), ("add", 2), ("add", 3)]
    known.told_strays("add", 1, any_there=False)
    known.told_strays("add", 2, any_there=True)
    known.told_strays("add", 3, any_there=False)
    assert known.doubts == [("add", 2)]
    assert counts(known, 100.0) is None
    known.made(100.0, "add", 2)
    tell(known, 100.5, 2, queued=3)
    assert counts(known, 100.5) == (3, 0)
    found = known.signals(101.0, "add", STALE_S)
    # They did not arrive just now.
    assert found is not None
    assert found.arrivals_per_second is None


def test_a_consumer_that_goes_away_leaves_doubt_about_its_lane() -> None:
    known = lanes("add")
    known.made(100.0, "add", 2)
    known.told_stream(101.0, 4)
    tell(known, 101.0, 2, queued=4)
    known.gone("add", 2)
    assert known.lane("add", 2) is None
    assert known.doubts == [("add", 2)]
    assert counts(known, 101.0) is None
    known.told_stream(102.0, 0)
    assert counts(known, 102.0) == (0, 0)


def test_a_consumer_that_is_missing_in_the_list_went_away_unheard() -> None:
    known = lanes("add", messages=1, consumers=("add_1", "add_2", "add_3"))
    known.told_consumers({"add_1", "add_3"})
    assert known.doubts == [("add", 2)]
    assert known.consumer_count == 2


def test_a_deployment_created_later_has_the_lanes_that_are_there() -> None:
    known = lanes("other", messages=2, consumers=("add_2", "other_2", "somebody-elses"))
    known.declare({"other", "add"})
    assert sorted(known.lanes) == [("add", 2), ("other", 2)]
    assert known.is_doubtful("add", 1)
    assert known.consumer_count == 3
    known.declare({"other"})
    assert known.lanes == [("other", 2)]
    assert not known.is_doubtful("add", 1)


def test_the_first_tasks_of_a_new_consumer_are_arrivals() -> None:
    known = lanes("add")
    known.made(100.0, "add", 2)
    tell(known, 102.0, 2, queued=5, ongoing=1)
    found = known.signals(102.0, "add", STALE_S)
    assert found is not None
    assert found.arrivals_per_second == pytest.approx(3.0)


def test_what_a_consumer_delivered_before_it_was_known_is_no_arrival() -> None:
    known = lanes("add")
    known.there("add", 2)
    tell(known, 102.0, 2, queued=5, ongoing=1000)
    found = known.signals(102.0, "add", STALE_S)
    assert found is not None
    assert found.arrivals_per_second is None


def test_after_a_gap_nothing_is_known_until_it_is_told_again() -> None:
    known = lanes("add", "other", messages=1, consumers=("add_2",))
    for doubt in known.doubts:
        known.told_strays(*doubt, any_there=False)
    tell(known, 100.0, 2, queued=1)
    known.forget()
    assert counts(known, 100.0) is None
    assert counts(known, 100.0, "other") is None
    known.told_stream(101.0, 1)
    known.told_consumers({"add_2"})
    tell(known, 101.0, 2, queued=1)
    assert counts(known, 101.0) is None
    for doubt in known.doubts:
        known.told_strays(*doubt, any_there=False)
    assert counts(known, 101.0) == (1, 0)
    assert counts(known, 101.0, "other") == (0, 0)


def test_a_consumer_of_somebody_else_has_no_priority() -> None:
    assert parse("add-1_2") == ("add-1", 2)
    assert parse("add_7") == ("add_7", EVERY_PRIORITY)
    assert parse("mine") == ("mine", EVERY_PRIORITY)


def test_a_dead_letter_written_twice_counts_once_and_memory_is_bounded() -> None:
    dead = DeadTasks()
    for task in ("a", "b", "a"):
        dead.add("add", task)
    assert dead.count("add") == 2
    for number in range(2 * MAX_REMEMBERED):
        dead.add("other", str(number))
    assert dead.count("other") == 2 * MAX_REMEMBERED
    assert len(dead._recent) == MAX_REMEMBERED
    dead.keep({"other"})
    assert dead.count("add") == 0
