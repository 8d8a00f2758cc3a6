"""Which tasks a list is about, and where it goes on."""

from typing import Any

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.task_pb2 import Task
from services.router.tasks.selection import Mark, mark_of, page_size_of, selection_of
from services.wire.outcomes import OutcomeError
from services.wire.tasks import states


@pytest.mark.parametrize("mark", [Mark(False, 1), Mark(False, 10**17), Mark(True, 5)])
def test_a_token_says_where_to_go_on(mark: Mark) -> None:
    assert mark_of(mark.token()) == mark


@pytest.mark.parametrize("token", ["x", "!!!", "cXVldWVkOng", "ä", "a" * 1000, "ZW5kZWQ6LTE"])
def test_a_token_that_no_page_gave_is_refused(token: str) -> None:
    with pytest.raises(OutcomeError, match="page_token") as caught:
        mark_of(token)
    assert caught.value.outcome == OUTCOME_INVALID_ARGUMENT
    assert len(caught.value.message) < 300


def test_a_page_has_a_bounded_size() -> None:
    assert [page_size_of(size) for size in (0, 7, 5000)] == [50, 7, 1000]
    with pytest.raises(OutcomeError, match="page_size is -1"):
        page_size_of(-1)


def test_a_selection_has_the_tenants_tasks_with_all_labels() -> None:
    selected = selection_of("a", "", "", [], states.NEXT, {"x": "1", "y": "2"})
    assert selected.has(Task(tenant="a", labels={"x": "1", "y": "2", "z": "3"}))
    assert not selected.has(Task(tenant="b", labels={"x": "1", "y": "2"}))
    assert not selected.has(Task(tenant="a", labels={"x": "1", "y": "3"}))
    assert not selected.has(Task(tenant="a", labels={"x": "1"}))


def test_without_states_it_is_about_those_that_are_meant() -> None:
    assert selection_of("a", "", "", [], states.TERMINAL).states == states.TERMINAL
    chosen = selection_of("a", "", "", [Task.STATE_QUEUED], states.TERMINAL)
    assert chosen.states == {Task.STATE_QUEUED}


@pytest.mark.parametrize("state", [0, 7, -1])
def test_a_state_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(OutcomeError, match="legal are STATE_QUEUED"):
        selection_of("a", "", "", [state], states.NEXT)


def test_a_batch_that_is_none_is_refused() -> None:
    with pytest.raises(OutcomeError, match=r"batch is '>'"):
        selection_of("a", "", ">", [], states.NEXT)
