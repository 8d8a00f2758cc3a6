"""The life of a replica: its table, its restarts, what is assigned and what runs."""

import pytest

from forebay.v1.autoscaler_pb2 import Assignment
from services.node_agent import replica_states as states
from services.node_agent.intake import MAX_KILLS
from services.node_agent.reconcile import AssignedSet, accepts, reconcile
from services.node_agent.restart_policy import (
    MAX_DEATHS_UNDER_REQUESTS,
    MAX_EXCUSED_DEATHS,
    MAX_FAILURES,
    Failures,
)


def test_every_state_can_be_left_for_stopped_by_way_of_draining() -> None:
    for state in states.TRANSITIONS:
        if state is not states.STOPPED:
            assert states.step(states.step(state, states.DRAINING), states.STOPPED)


def test_stopped_is_the_end() -> None:
    with pytest.raises(states.IllegalTransitionError, match="STATE_STOPPED cannot become"):
        states.step(states.STOPPED, states.STARTING)


def test_draining_does_not_serve_again() -> None:
    with pytest.raises(states.IllegalTransitionError):
        states.step(states.DRAINING, states.READY)


def test_the_third_failure_in_a_row_breaks_and_then_rests() -> None:
    failures = Failures()
    waits = []
    for _ in range(MAX_FAILURES):
        assert not failures.broken
        failures = failures.after_failure(proven=False, under_requests=False)
        waits.append(failures.wait_s(failure_retry_s=60))
    assert failures.broken
    assert waits == [0.5, 1.0, 60]


def test_a_replica_that_has_proven_itself_starts_counting_anew() -> None:
    failures = Failures(own=MAX_FAILURES - 1, under_requests=2)
    assert failures.after_failure(proven=True, under_requests=False) == Failures(own=1)


def test_one_request_cannot_break_a_replica_but_dying_of_every_request_does() -> None:
    failures = Failures()
    for _ in range(MAX_KILLS):
        failures = failures.after_failure(proven=False, under_requests=True)
    assert not failures.broken
    for _ in range(MAX_DEATHS_UNDER_REQUESTS - MAX_KILLS):
        failures = failures.after_failure(proven=False, under_requests=True)
    assert failures.broken


def test_deaths_by_bad_tasks_are_excused_but_not_without_end() -> None:
    failures = Failures(under_requests=1)
    for _ in range(MAX_EXCUSED_DEATHS - 1):
        failures = failures.after_failure(proven=False, under_requests=True, excused=True)
    assert not failures.broken
    assert failures.wait_s(failure_retry_s=60) == 0.5
    proven = failures.after_failure(proven=True, under_requests=True, excused=True)
    assert proven == Failures(excused=1)
    assert failures.after_failure(proven=False, under_requests=True, excused=True).broken


def assigned(*ids: str, revision: int = 1, epoch: int = 1) -> AssignedSet:
    return AssignedSet(tuple(Assignment(replica_id=i) for i in ids), revision, epoch)


def test_starts_what_is_missing_keeps_what_runs_and_drains_what_is_absent() -> None:
    actions = reconcile(assigned("a", "b"), running={"b": False, "c": False, "d": True})
    assert [a.replica_id for a in actions.start] == ["a"]
    assert [a.replica_id for a in actions.keep] == ["b"]
    assert actions.drain == ("c",)


def test_an_older_epoch_is_refused_whatever_its_revision() -> None:
    current = assigned(revision=5, epoch=2)
    assert not accepts(current, assigned(revision=9, epoch=1))
    assert not accepts(current, assigned(revision=4, epoch=2))
    assert accepts(current, assigned(revision=5, epoch=2))
    assert accepts(current, assigned(revision=1, epoch=3))
    assert accepts(None, assigned())
