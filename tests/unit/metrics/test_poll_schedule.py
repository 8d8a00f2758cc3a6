"""Whose queue is asked for, over minutes that take no time."""

from collections import Counter

from services.metrics.poll_schedule import IDLE_INTERVAL_S, PollSchedule

TICK_S = 0.1


def asked(deployments: int, busy: int, at_most: int, seconds: int) -> tuple[Counter[str], int]:
    """How often each was asked for, and how many at most in a second."""
    schedule = PollSchedule()
    names = [f"d{number}" for number in range(deployments)]
    schedule.keep(0.0, set(names))
    counts: Counter[str] = Counter()
    most = 0
    for tick in range(int(seconds / TICK_S)):
        now_s = tick * TICK_S
        taken = schedule.take(now_s, at_most)
        most = max(most, len(taken))
        for name in taken:
            counts[name] += 1
            schedule.answered(now_s, name, 1.0 if int(name[1:]) < busy else IDLE_INTERVAL_S)
    return counts, most


def test_busy_queues_are_asked_every_second_and_every_other_one_in_20_s() -> None:
    counts, most = asked(deployments=10_000, busy=100, at_most=100, seconds=100)
    assert all(counts[f"d{number}"] >= 80 for number in range(100))
    assert all(counts[f"d{number}"] >= 4 for number in range(10_000))
    assert most <= 100


def test_with_more_busy_queues_than_can_be_asked_all_have_their_turn() -> None:
    counts, _ = asked(deployments=3000, busy=3000, at_most=100, seconds=60)
    assert min(counts.values()) >= 18
    assert max(counts.values()) - min(counts.values()) <= 2


def test_a_question_without_an_answer_is_asked_again() -> None:
    schedule = PollSchedule()
    schedule.keep(0.0, {"add"})
    assert schedule.take(0.0, 10) == ["add"]
    assert schedule.take(1.9, 10) == []
    assert schedule.take(2.0, 10) == ["add"]


def test_a_wake_is_asked_for_at_once_and_an_unknown_one_not_at_all() -> None:
    schedule = PollSchedule()
    schedule.keep(0.0, {"add"})
    schedule.take(0.0, 10)
    schedule.answered(0.0, "add", IDLE_INTERVAL_S)
    schedule.by(3.0, "add")
    schedule.by(3.0, "unknown")
    assert schedule.take(2.9, 10) == []
    assert schedule.take(3.0, 10) == ["add"]


def test_what_was_deleted_is_not_asked_for_and_leaves_nothing_behind() -> None:
    schedule = PollSchedule()
    for second in range(1000):
        schedule.keep(float(second), {f"d{second}-{number}" for number in range(50)})
        schedule.take(float(second), 10)
    assert len(schedule._heap) < 2000
    assert all(name.startswith("d999-") for name in schedule.take(2000.0, 1000))
