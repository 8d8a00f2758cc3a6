"""Pure: what is written down of a task: how it ended, what was tried, what its replica says."""

from google.protobuf.timestamp_pb2 import Timestamp

from forebay.v1.envelope_pb2 import OUTCOME_DEADLINE_EXCEEDED, OUTCOME_OK, Outcome
from forebay.v1.task_pb2 import Task, TaskAttempt
from forebay.v1.task_record_pb2 import DeadTask, TaskEvent, TaskProgress
from services.node_agent.tasks.ongoing_task import OngoingTask
from services.wire.instants import timestamp
from services.wire.tasks import states

MAX_ERROR_CHARACTERS = 1000
KEPT_ATTEMPTS = 10


def shortened(error: str) -> str:
    """What went wrong, as long as an attempt may say it."""
    if len(error) <= MAX_ERROR_CHARACTERS:
        return error
    return error[: MAX_ERROR_CHARACTERS - 1] + "…"


def attempt(
    task: OngoingTask, now_s: float, replica_id: str, node: str, outcome: Outcome, error: str
) -> TaskAttempt:
    """An attempt that has ended.

    Args:
        task: the task.
        now_s: seconds since the epoch on nats-server's clock.
        replica_id: that ran it.
        node: of that replica.
        outcome: how it ended.
        error: what went wrong.
    """
    return TaskAttempt(
        start_time=timestamp(task.started_server_s or now_s),
        end_time=timestamp(now_s),
        replica_id=replica_id,
        node=node,
        outcome=outcome,
        error=shortened(error),
    )


def succeeded(task: OngoingTask, last: TaskAttempt) -> Task:
    """A task whose attempt succeeded."""
    return _ended(task, states.SUCCEEDED, OUTCOME_OK, "", last.end_time, last)


def expired(task: OngoingTask, now_s: float) -> Task:
    """A task that was not run in time.

    Args:
        task: the task.
        now_s: seconds since the epoch on nats-server's clock.
    """
    attempts = task.known.attempts
    error = "the task was not run within its ttl"
    if attempts:
        error = f"{error}; its last attempt: {attempts[-1].error}"
    return _ended(
        task, states.EXPIRED, OUTCOME_DEADLINE_EXCEEDED, shortened(error), timestamp(now_s), None
    )


def failed(task: OngoingTask, last: TaskAttempt) -> DeadTask:
    """A task that is not tried again, with what it takes to do so all the same."""
    ended = _ended(task, states.FAILED, last.outcome, last.error, last.end_time, last)
    return DeadTask(task=ended, envelope=task.envelope)


def after_failure(task: OngoingTask, last: TaskAttempt, next_s: float) -> TaskProgress:
    """What is known of a task after an attempt that counts.

    Args:
        task: the task.
        last: the attempt.
        next_s: when the next may begin, seconds since the epoch on nats-server's clock.
    """
    made = _accounted(task)
    made.failed_count += 1
    attempts = [*made.attempts, last][-KEPT_ATTEMPTS:]
    del made.attempts[:]
    made.attempts.extend(attempts)
    made.next_attempt_time.CopyFrom(timestamp(next_s))
    return made


def after_loss(task: OngoingTask) -> TaskProgress:
    """What is known of a task whose replica died while others were inside, too."""
    made = _accounted(task)
    made.lost_count += 1
    made.alone = True
    return made


def given_back(task: OngoingTask) -> TaskProgress:
    """What is known of a task whose delivery ended without an attempt that counts."""
    return _accounted(task)


def refused_count(known: TaskProgress) -> int:
    """Deliveries that are accounted for and were no attempt that counts, nor lost in company."""
    return max(0, known.delivery_count - known.failed_count - known.lost_count)


def event(
    task: OngoingTask,
    state: Task.State,
    now_s: float,
    replica_id: str,
    error: str = "",
    next_s: float | None = None,
) -> bytes:
    """What is told of a task, a serialised TaskEvent.

    Args:
        task: the task.
        state: what it is now.
        now_s: seconds since the epoch on nats-server's clock.
        replica_id: the replica.
        error: what went wrong with the last attempt.
        next_s: when the next may begin.
    """
    made = TaskEvent(
        task_id=task.envelope.task_id,
        state=state,
        attempt=task.attempt,
        event_time=timestamp(now_s),
        replica_id=replica_id,
        error=shortened(error),
        next_attempt_time=None if next_s is None else timestamp(next_s),
    )
    serialized: bytes = made.SerializeToString()
    return serialized


def _accounted(task: OngoingTask) -> TaskProgress:
    made = TaskProgress()
    made.CopyFrom(task.known)
    made.delivery_count = task.delivery
    made.ClearField("next_attempt_time")
    return made


def _ended(
    task: OngoingTask,
    state: Task.State,
    outcome: Outcome,
    error: str,
    end_time: Timestamp,
    last: TaskAttempt | None,
) -> Task:
    ended = Task()
    ended.CopyFrom(task.envelope.task)
    ended.state = states.step(states.RUNNING, state)
    ended.outcome = outcome
    ended.error = error
    ended.end_time.CopyFrom(end_time)
    known = task.known
    ended.attempt_count = known.failed_count
    if known.failed_count or last is not None:
        ended.attempts.extend(known.attempts)
    if last is not None:
        ended.attempts.append(last)
        ended.attempt_count += 1
        del ended.attempts[:-KEPT_ATTEMPTS]
    if ended.attempts:
        ended.start_time.CopyFrom(ended.attempts[-1].start_time)
    return ended
