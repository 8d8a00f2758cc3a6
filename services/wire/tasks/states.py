"""The life of a task as a table. Pure.

QUEUED and RUNNING are told from where its message is; the others are written once, and stay.
"""

from forebay.v1.envelope_pb2 import (
    OUTCOME_CANCELLED,
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_OK,
    Outcome,
)
from forebay.v1.task_pb2 import Task

State = Task.State

QUEUED = Task.STATE_QUEUED
RUNNING = Task.STATE_RUNNING
SUCCEEDED = Task.STATE_SUCCEEDED
FAILED = Task.STATE_FAILED
CANCELLED = Task.STATE_CANCELLED
EXPIRED = Task.STATE_EXPIRED

TERMINAL = frozenset({SUCCEEDED, FAILED, CANCELLED, EXPIRED})

NEXT: dict[State, frozenset[State]] = {
    QUEUED: frozenset({RUNNING, CANCELLED, EXPIRED, FAILED}),
    # Back to QUEUED for another attempt, or because its replica died.
    RUNNING: frozenset({QUEUED, SUCCEEDED, FAILED, CANCELLED, EXPIRED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
    EXPIRED: frozenset(),
}

OUTCOMES: dict[State, Outcome] = {
    SUCCEEDED: OUTCOME_OK,
    CANCELLED: OUTCOME_CANCELLED,
    EXPIRED: OUTCOME_DEADLINE_EXCEEDED,
}
"""The outcome of each terminal state; a FAILED task has that of its last attempt."""


class StepError(ValueError):
    """A step that no task takes."""


def step(before: State, after: State) -> State:
    """Returns `after` if a task may go there from `before`.

    Raises:
        StepError: if it may not.
    """
    if after not in NEXT[before]:
        raise StepError(f"no task goes from {word(before)} to {word(after)}")
    return after


def word(state: State) -> str:
    """A state as people read and write it, such as `queued`."""
    name: str = State.Name(state)
    return name.removeprefix("STATE_").lower()


def parse(text: str) -> State:
    """The state that a word names, whatever the case.

    Raises:
        ValueError: if it names none; the message says which there are.
    """
    words = {word(state): state for state in NEXT}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is no state of a task: legal are {', '.join(words)}") from None
