"""Which lane of tasks is asked, and when."""

import itertools

from services.node_agent.tasks.lanes import ANSWER_S, MAX_POLL_S, MIN_POLL_S, Lanes

HIGH, NORMAL, LOW = 1, 2, 3


def emptied(lanes: Lanes, now_s: float = 0.0) -> list[int]:
    """Asks every lane that may have tasks, and finds it empty; the lanes asked."""
    found = []
    while (lane := lanes.to_ask()) is not None:
        lanes.answered(lanes.ask(lane, 1, now_s))
        found.append(lane)
    return found


def test_lower_lanes_are_asked_once_the_higher_are_empty() -> None:
    assert emptied(Lanes()) == [HIGH, NORMAL, LOW]


def test_one_question_is_open_at_a_time() -> None:
    lanes = Lanes()
    lanes.ask(HIGH, 2, 0)
    assert lanes.to_ask() is None
    lanes.delivered(0)
    assert (lanes.to_ask(), lanes.asked) == (None, 1)
    lanes.delivered(0)
    assert lanes.to_ask() == HIGH


def test_a_lane_that_had_as_many_as_asked_for_is_asked_again() -> None:
    lanes = Lanes()
    lanes.answered(lanes.ask(HIGH, 1, 0))
    lanes.ask(NORMAL, 1, 0)
    lanes.delivered(0)
    assert lanes.to_ask() == NORMAL


def test_an_empty_lane_is_not_asked_before_somebody_says_so() -> None:
    lanes = Lanes()
    emptied(lanes)
    assert lanes.to_ask() is None
    lanes.wake()
    assert lanes.to_ask() == HIGH


def test_a_word_that_comes_while_a_lane_says_it_is_empty_is_not_lost() -> None:
    lanes = Lanes()
    name = lanes.ask(HIGH, 1, 0)
    lanes.wake()
    lanes.answered(name)
    assert lanes.to_ask() == HIGH


def test_the_answer_to_an_older_question_does_not_end_a_new_one() -> None:
    lanes = Lanes()
    old = lanes.ask(HIGH, 1, 0)
    lanes.lost()
    lanes.ask(HIGH, 1, 0)
    lanes.answered(old)
    assert lanes.asked == 1


def test_all_lanes_are_polled_soon_after_tasks_came_and_seldom_later() -> None:
    lanes = Lanes()
    lanes.tick(0)
    lanes.ask(HIGH, 1, 0)
    lanes.delivered(0)
    emptied(lanes)
    asked_s = []
    for step in range(1, 4000):
        now_s = step * 0.01
        lanes.tick(now_s)
        if emptied(lanes, now_s):
            asked_s.append(now_s)
    pauses = [b - a for a, b in itertools.pairwise(asked_s)]
    assert asked_s[0] <= 2 * MIN_POLL_S
    assert max(pauses) <= MAX_POLL_S + 0.02
    assert min(pauses[-5:]) >= MAX_POLL_S - 0.02


def test_a_lane_is_asked_when_a_task_that_was_given_back_is_due() -> None:
    lanes = Lanes()
    lanes.tick(100)
    emptied(lanes, 100)
    lanes.returns(101)
    lanes.tick(100.9)
    assert lanes.to_ask() is None
    assert lanes.next_tick_s(100.9) < 0.3
    lanes.tick(101.2)
    assert lanes.to_ask() == HIGH


def test_a_question_that_is_never_answered_is_forgotten() -> None:
    lanes = Lanes()
    lanes.ask(HIGH, 3, 0)
    lanes.tick(ANSWER_S)
    assert lanes.to_ask() is None
    lanes.tick(ANSWER_S + 0.1)
    assert lanes.to_ask() == HIGH
