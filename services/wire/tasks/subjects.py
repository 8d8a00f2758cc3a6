"""Every NATS subject of tasks. Names that go into one have passed `names.check_id`. Pure.

The id of a task stands before what else is known of it, so that JetStream finds it without looking
through the others; its batch and when it expires stand in the subject, so that both can be told
without reading a body.
"""

from dataclasses import dataclass

TASKS = "forebay.task.*.*.*.*.*"
"""Tasks as they wait in JetStream."""

ENDED = "forebay.task-ended.*.*.*"
"""Tasks that have ended, once each."""

RESULTS = "forebay.task-result.*.*"
"""Results too large to be kept with their task."""

PROGRESS = "forebay.task-progress.*.*"
"""What is known of tasks that were tried and have not ended."""

DEAD = "forebay.task-dead.*.*"
"""Failed tasks with what it takes to try them again."""

CALLBACKS = "forebay.callback.*.*"
"""Calls that are to be made."""

USAGE_NOTES = "forebay.usage-note.*"
"""What replicas did for whom."""

WAITING = "forebay.task-waiting.*"
"""Every word that a task waits."""

NO_BATCH = "-"
"""Stands for no batch; no batch may be called so."""


def lane(deployment: str, priority: int) -> str:
    """All tasks of one priority that wait for a deployment."""
    return f"forebay.task.{deployment}.{priority}.>"


def task(deployment: str, priority: int, task_id: str, batch: str, expires_s: int) -> str:
    """Where a task waits."""
    return f"forebay.task.{deployment}.{priority}.{task_id}.{batch or NO_BATCH}.{expires_s}"


def any_task(deployment: str = "*", task_id: str = "*", batch: str = "*") -> str:
    """Tasks that wait, of a deployment, an id or a batch."""
    return f"forebay.task.{deployment}.*.{task_id}.{batch or NO_BATCH}.*"


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """What the subject of a waiting task says of it."""

    deployment: str
    priority: int
    task_id: str
    batch: str
    expires_s: int


def parse_task(subject: str) -> WaitingTask:
    """What the subject of a waiting task says."""
    _, _, deployment, priority, task_id, batch, expires_s = subject.split(".")
    named = "" if batch == NO_BATCH else batch
    return WaitingTask(deployment, int(priority), task_id, named, int(expires_s))


def ended(deployment: str = "*", task_id: str = "*", batch: str = "*") -> str:
    """Where the one word that a task has ended is kept; `batch` is empty if it has none."""
    return f"forebay.task-ended.{deployment}.{task_id}.{batch or NO_BATCH}"


def result(deployment: str, task_id: str) -> str:
    """Where a large result is kept."""
    return f"forebay.task-result.{deployment}.{task_id}"


def progress(deployment: str, task_id: str) -> str:
    """Where what is known of a task is kept that was tried and has not ended."""
    return f"forebay.task-progress.{deployment}.{task_id}"


def dead(deployment: str = "*", task_id: str = "*") -> str:
    """Where a failed task is kept."""
    return f"forebay.task-dead.{deployment}.{task_id}"


def callback(deployment: str, task_id: str) -> str:
    """Where a call that is to be made waits."""
    return f"forebay.callback.{deployment}.{task_id}"


def usage_note(deployment: str) -> str:
    """Where replicas say what they did for whom."""
    return f"forebay.usage-note.{deployment}"


def waiting(deployment: str) -> str:
    """Where is said that a task waits; not for each task. The payload is its priority."""
    return f"forebay.task-waiting.{deployment}"


def event(deployment: str, task_id: str) -> str:
    """Where an agent says what becomes of a task."""
    return f"forebay.task-event.{deployment}.{task_id}"


def cancel(deployment: str) -> str:
    """Where is said that a task was cancelled; the payload is its id."""
    return f"forebay.task-cancel.{deployment}"
