"""The subjects and the states of tasks."""

import fnmatch
import itertools

import pytest

from forebay.v1.task_pb2 import Task
from services.wire.tasks import states, subjects


def test_the_subject_of_a_waiting_task_says_all_that_is_asked_of_it() -> None:
    for batch in ("", "b-1"):
        subject = subjects.task("echo", 2, "t1", batch, 1_800_000_000)
        said = subjects.parse_task(subject)
        assert said == subjects.WaitingTask("echo", 2, "t1", batch, 1_800_000_000)


def test_a_waiting_task_is_found_by_deployment_id_and_batch() -> None:
    subject = subjects.task("echo", 2, "t1", "b", 5)
    for pattern in (
        subjects.TASKS,
        subjects.any_task("echo"),
        subjects.any_task("echo", "t1"),
        subjects.any_task("*", "*", "b"),
    ):
        assert fnmatch.fnmatchcase(subject, pattern), pattern
    assert not fnmatch.fnmatchcase(subject, subjects.any_task("echo", "*", "c"))
    assert not fnmatch.fnmatchcase(subject, subjects.any_task("echo", "*", ""))


@pytest.mark.parametrize("before", sorted(states.TERMINAL))
def test_nothing_follows_a_terminal_state(before: Task.State) -> None:
    for after in states.NEXT:
        with pytest.raises(states.StepError, match=states.word(before)):
            states.step(before, after)


def test_every_state_is_reached_and_has_a_word() -> None:
    reached = set(itertools.chain.from_iterable(states.NEXT.values()))
    assert reached == set(states.NEXT) == {*Task.State.values()} - {Task.STATE_UNSPECIFIED}
    for state in states.NEXT:
        assert states.parse(states.word(state).upper()) == state


def test_a_word_that_is_no_state_is_told_which_are() -> None:
    with pytest.raises(ValueError, match="legal are queued, running, succeeded"):
        states.parse("done")
