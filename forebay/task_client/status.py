"""Pure: what is known of a task, as Python's types, and what it comes to once it has ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from forebay.errors import (
    REQUEST_ID_KEY,
    TRACE_ID_KEY,
    ForebayError,
    TaskCancelledError,
    TaskError,
    TaskExpiredError,
    TaskFailedError,
)
from forebay.inference import InferResult, read_response
from forebay.v1.task_pb2 import Task, TaskAttempt
from services.wire import names
from services.wire.outcomes import LABELS, STATUS
from services.wire.tasks import states

_NAME_PARTS = 4


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task that has ended.

    Attributes:
        start_time: when it began.
        end_time: when it ended.
        replica_id: the replica that ran it.
        node: node of that replica.
        outcome: how it ended, such as `internal` or `deadline_exceeded`.
        error: what went wrong.
    """

    start_time: datetime | None
    end_time: datetime | None
    replica_id: str
    node: str
    outcome: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """A task as it is at one moment.

    Attributes:
        name: resource name, `deployments/{deployment}/tasks/{task}`.
        state: `queued`, `running`, `succeeded`, `failed`, `cancelled` or `expired`.
        priority: `high`, `normal` or `low`.
        batch: the batch it belongs to; None if to none.
        batch_index: its position in the batch, from 0.
        labels: as they were submitted.
        tenant: who submitted it.
        create_time: when it was stored; with UTC as time zone, as all instants here.
        start_time: when its last attempt began.
        end_time: when it ended.
        expire_time: when it expires or, once it has ended, when it is forgotten.
        next_attempt_time: when the next attempt may begin, if it waits for one.
        attempts: the last 10 attempts that have ended and count.
        attempt_count: how many have ended and count.
        outcome: how it ended, such as `ok` or `internal`; None before.
        error: what went wrong last; empty if nothing has.
        trace_id: W3C trace id of the call that submitted it; None if it has none.
        retry_of: name of the failed task that this one tries again; None if it is none.
        result_size_bytes: size of its result.
        callback_url: where its end is posted; empty: nowhere.
        idempotency_key: as it was submitted.
    """

    name: str
    state: str
    priority: str
    batch: str | None
    batch_index: int | None
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    expire_time: datetime | None = None
    next_attempt_time: datetime | None = None
    attempts: tuple[Attempt, ...] = ()
    attempt_count: int = 0
    outcome: str | None = None
    error: str = ""
    trace_id: str | None = None
    retry_of: str | None = None
    result_size_bytes: int = 0
    callback_url: str = ""
    idempotency_key: str = ""

    @property
    def id(self) -> str:
        """Last part of its name."""
        return self.name.rpartition("/")[2]

    @property
    def deployment(self) -> str:
        """The deployment that runs it."""
        return self.name.split("/")[1]

    @property
    def ended(self) -> bool:
        """Whether it has ended, one way or the other."""
        return states.parse(self.state) in states.TERMINAL


def status_of(task: Task) -> TaskStatus:
    """A task's message as Python's types."""
    return TaskStatus(
        name=task.name,
        state=state_word(task.state),
        priority=Task.Priority.Name(task.priority).removeprefix("PRIORITY_").lower(),
        batch=task.batch or None,
        batch_index=task.batch_index if task.HasField("batch_index") else None,
        labels=dict(task.labels),
        tenant=task.tenant,
        create_time=_instant(task, "create_time"),
        start_time=_instant(task, "start_time"),
        end_time=_instant(task, "end_time"),
        expire_time=_instant(task, "expire_time"),
        next_attempt_time=_instant(task, "next_attempt_time"),
        attempts=tuple(map(_attempt, task.attempts)),
        attempt_count=task.attempt_count,
        outcome=LABELS.get(task.outcome),
        error=task.error,
        trace_id=task.trace_id or None,
        retry_of=task.retry_of or None,
        result_size_bytes=task.result_size_bytes,
        callback_url=task.callback_url,
        idempotency_key=task.idempotency_key,
    )


def state_word(state: Task.State) -> str:
    """A state as people write it; what a newer mesh may send has its number."""
    return states.word(state) if state in states.NEXT else f"state {int(state)}"


def has_ended(task: Task) -> bool:
    """Whether a task has ended, one way or the other."""
    return task.state in states.TERMINAL


def result_of(task: Task) -> InferResult:
    """The result of a task that has ended.

    Raises:
        TaskError: of the kind that says how it ended, if it has no result.
        InvalidResponseError: if the answer contradicts itself.
    """
    if task.state != states.SUCCEEDED:
        raise error_of(task)
    said = {REQUEST_ID_KEY: task.name.rpartition("/")[2]}
    if task.trace_id:
        said[TRACE_ID_KEY] = task.trace_id
    return read_response(task.result, said)


def error_of(task: Task) -> TaskError:
    """What a caller gets who wants the result of a task that has ended without one."""
    status = status_of(task)
    code = STATUS.get(task.outcome)
    match task.state:
        case states.CANCELLED:
            return TaskCancelledError(f"{task.name} was cancelled", status, code)
        case states.EXPIRED:
            last = f"; last error: {task.error}" if task.error else ""
            tried = f" It was tried {_times(task.attempt_count)}{last}" if task.attempts else ""
            return TaskExpiredError(
                f"{task.name} did not end within its time to live.{tried}", status, code
            )
        case _:
            after = f" after {_attempts(task.attempt_count)}" if task.attempt_count else ""
            return TaskFailedError(f"{task.name} failed{after}: {task.error}", status, code)


def task_name(text: str) -> str:
    """The resource name of a task that is named in full or as `deployment/task`.

    Raises:
        ForebayError: if it is neither.
    """
    parts = text.split("/")
    if len(parts) == 2:
        parts = ["deployments", parts[0], "tasks", parts[1]]
    legal = len(parts) == _NAME_PARTS and (parts[0], parts[2]) == ("deployments", "tasks")
    if not (legal and names.is_id(parts[1]) and names.is_id(parts[3])):
        raise ForebayError(
            f"{names.quoted(text)} is not a task: write deployments/{{deployment}}/tasks/{{task}} "
            "or {deployment}/{task}"
        )
    return "/".join(parts)


def _attempt(attempt: TaskAttempt) -> Attempt:
    return Attempt(
        start_time=_instant(attempt, "start_time"),
        end_time=_instant(attempt, "end_time"),
        replica_id=attempt.replica_id,
        node=attempt.node,
        outcome=LABELS.get(attempt.outcome, "unknown"),
        error=attempt.error,
    )


def _instant(message: Any, field_name: str) -> datetime | None:
    if not message.HasField(field_name):
        return None
    instant: datetime = getattr(message, field_name).ToDatetime(UTC)
    return instant


def _attempts(count: int) -> str:
    return f"{count} attempt" if count == 1 else f"{count} attempts"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
