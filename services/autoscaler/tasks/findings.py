"""What is to be done about what was seen of tasks. Pure: time is an argument.

The sweeper sees subjects, a thousand at a time and without bodies, and says here what it sees; what
comes back is what to repair, and how a task ends whose end nobody else will write down.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from google.protobuf.message import DecodeError

from forebay.v1.envelope_pb2 import OUTCOME_ABORTED, OUTCOME_NOT_FOUND, Outcome
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import DeadTask, TaskEnvelope, TaskProgress
from services.wire import names
from services.wire.instants import timestamp
from services.wire.tasks import states, subjects
from services.wire.tasks.subjects import WaitingTask

SHORTEST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 120.0
PAUSE_RATIO = 20.0
"""A sweep may take a twentieth of the time: one of 100,000 waiting tasks takes about 0.7 s on two
cores."""

GONE_AFTER_S = 30.0
"""How long a deployment must be missing. A standby may have created it a moment ago, of which this
autoscaler hears within seconds, and a task may be there before that."""

SETTLED_AFTER_S = 5.0
"""How long is left to who has written an end: they take the task out of the queue next."""

DEFAULT_RESULT_TTL_S = 24 * 3600


class Repair(StrEnum):
    """What a sweep repairs, and counts."""

    EXPIRED = "expired"
    """A task had not ended when its time was over."""

    ENDED = "ended"
    """A task had ended and was still in the queue."""

    UNDELIVERABLE = "undeliverable"
    """A task had used up its deliveries, after which JetStream leaves it lying for ever."""

    ORPHANED = "orphaned"
    """A task waited for a deployment that was deleted."""

    BURIED = "buried"
    """A task had a dead letter, and no word that it had ended."""

    CONSUMER_MADE = "consumer_made"
    """Tasks waited where no replica could fetch them."""

    CONSUMER_REMOVED = "consumer_removed"
    """A deleted deployment had left a consumer."""

    PROGRESS_FORGOTTEN = "progress_forgotten"
    """What was known of attempts was kept for a task that is not in the queue."""


ENDS: dict[Repair, tuple[states.State, Outcome, str]] = {
    Repair.EXPIRED: (
        states.EXPIRED,
        states.OUTCOMES[states.EXPIRED],
        "not ended within its ttl",
    ),
    Repair.UNDELIVERABLE: (
        states.FAILED,
        OUTCOME_ABORTED,
        "the task was delivered as often as any task may be, and no replica said what became of "
        "it: it may end its replicas; look into their logs, then retry it",
    ),
    Repair.ORPHANED: (states.FAILED, OUTCOME_NOT_FOUND, "the deployment was deleted"),
}
"""How a task ends that a sweep ends: state, outcome and what is said of it."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A waiting task and where it waits."""

    subject: str
    task: WaitingTask

    @classmethod
    def of(cls, subject: str) -> "Queued | None":
        """What waits at a subject; None if that is no task's."""
        try:
            return cls(subject, subjects.parse_task(subject))
        except ValueError:
            return None


@dataclass(slots=True)
class Seen:
    """What some of the queue's subjects say.

    Attributes:
        waiting: all that are tasks.
        due: those of them that have expired.
        orphaned: others of them whose deployment was deleted.
        lanes: how many wait, by deployment and priority.
        unreadable: subjects that are no task's.
    """

    waiting: list[Queued] = field(default_factory=list)
    due: list[Queued] = field(default_factory=list)
    orphaned: list[Queued] = field(default_factory=list)
    lanes: Counter[tuple[str, int]] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def add(self, subject_list: Iterable[str], now_s: float, gone: Collection[str]) -> None:
        """Takes note of more subjects.

        Args:
            subject_list: of messages in the queue.
            now_s: the time, in seconds since the epoch.
            gone: deployments that were deleted.
        """
        for subject in subject_list:
            queued = Queued.of(subject)
            if queued is None:
                self.unreadable.append(subject)
                continue
            task = queued.task
            self.waiting.append(queued)
            self.lanes[task.deployment, task.priority] += 1
            # The subject has whole seconds only, cut off.
            if task.expires_s + 1 <= now_s:
                self.due.append(queued)
            elif task.deployment in gone:
                self.orphaned.append(queued)


class Missing:
    """Since when deployments that have tasks or consumers have not been declared."""

    def __init__(self) -> None:
        """All are there."""
        self._since_s: dict[str, float] = {}

    def gone(
        self, now_s: float, seen: Collection[str], declared: Collection[str]
    ) -> frozenset[str]:
        """Those of `seen` that were deleted.

        Args:
            now_s: the time; any clock, but always the same.
            seen: deployments that have tasks or consumers now.
            declared: those that there are.
        """
        missing = set(seen) - set(declared)
        self._since_s = {name: self._since_s.get(name, now_s) for name in missing}
        return frozenset(
            name for name, since_s in self._since_s.items() if now_s - since_s >= GONE_AFTER_S
        )


def pause_s(took_s: float, more: bool) -> float:
    """How long to wait after a sweep, in seconds.

    Args:
        took_s: how long it took.
        more: it left repairs for the next.
    """
    if more:
        return took_s
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, PAUSE_RATIO * took_s))


def envelope(task: WaitingTask, data: bytes) -> TaskEnvelope:
    """A task as it waits; of one that cannot be read, as much as its subject says.

    Args:
        task: what the subject says.
        data: the message.
    """
    try:
        found: TaskEnvelope = TaskEnvelope.FromString(data)
    except DecodeError:
        found = TaskEnvelope()
    # What is written down belongs to the task of the subject, whatever the body says.
    found.task_id, found.deployment = task.task_id, task.deployment
    found.task.name = f"{names.deployment_name(task.deployment)}/tasks/{task.task_id}"
    found.task.batch = task.batch
    if found.task.result_ttl.ToNanoseconds() <= 0:
        found.task.result_ttl.FromSeconds(DEFAULT_RESULT_TTL_S)
    return found


def end(repair: Repair, waited: TaskEnvelope, progress: TaskProgress, now_s: float) -> Task:
    """A task as a sweep ends it.

    Args:
        repair: one of ENDS.
        waited: the task as it waited.
        progress: what is known of its attempts.
        now_s: the time, in seconds since the epoch.
    """
    state, outcome, sentence = ENDS[repair]
    if repair is Repair.EXPIRED:
        sentence += f", {waited.task.ttl.ToNanoseconds() / 1e9:g} s"
    if progress.attempts and progress.attempts[-1].error:
        sentence += f"; last error: {progress.attempts[-1].error}"
    task = Task()
    task.CopyFrom(waited.task)
    task.ClearField("result")
    task.state, task.outcome, task.error = state, outcome, sentence
    task.end_time.CopyFrom(timestamp(now_s))
    if progress.attempts:
        del task.attempts[:]
        task.attempts.extend(progress.attempts)
        task.start_time.CopyFrom(progress.attempts[-1].start_time)
    task.attempt_count = progress.failed_count
    return task


def has_settled(task: Task, now_s: float) -> bool:
    """Whether who ended a task has had the time to take it out of the queue."""
    return bool(now_s - task.end_time.ToNanoseconds() / 1e9 >= SETTLED_AFTER_S)


def should_have_ended(dead: DeadTask, now_s: float) -> bool:
    """Whether the word that a failed task has ended must still be there.

    It is forgotten before the dead letter is, after the task's result_ttl.
    """
    task = dead.task
    kept_s = task.end_time.ToNanoseconds() / 1e9 + task.result_ttl.ToNanoseconds() / 1e9
    return bool(task.state == states.FAILED and now_s < kept_s)
