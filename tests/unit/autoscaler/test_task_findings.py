"""What a sweep makes of what it sees of tasks."""

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_DEADLINE_EXCEEDED, OUTCOME_INTERNAL, OUTCOME_NOT_FOUND
from forebay.v1.task_pb2 import Task, TaskAttempt
from forebay.v1.task_record_pb2 import DeadTask, TaskEnvelope, TaskProgress
from services.autoscaler.tasks import findings
from services.autoscaler.tasks.findings import GONE_AFTER_S, Missing, Queued, Repair, Seen
from services.wire.instants import timestamp
from services.wire.tasks import subjects

NOW_S = 1_800_000_000.0


def _subject(task_id: str, expires_s: float, deployment: str = "add", priority: int = 2) -> str:
    return subjects.task(deployment, priority, task_id, "b", int(expires_s))


def test_a_task_is_due_when_its_time_is_over_and_not_before() -> None:
    seen = Seen()
    # A subject says whole seconds: t2 expires within the second that has begun.
    seen.add([_subject("t1", NOW_S - 1), _subject("t2", NOW_S)], NOW_S, ())
    assert [one.task.task_id for one in seen.due] == ["t1"]
    assert len(seen.waiting) == 2
    assert seen.lanes == {("add", 2): 2}


def test_an_expired_task_of_a_deleted_deployment_is_ended_once() -> None:
    seen = Seen()
    seen.add([_subject("t1", NOW_S - 1), _subject("t2", NOW_S + 9)], NOW_S, {"add"})
    assert [one.task.task_id for one in seen.due] == ["t1"]
    assert [one.task.task_id for one in seen.orphaned] == ["t2"]


@pytest.mark.parametrize(
    "subject", ["forebay.task.add.2.t1.-.soon", "forebay.task.add.2.t1", "forebay.task.add.x.t.b.1"]
)
def test_a_subject_that_is_no_tasks_is_only_told(subject: str) -> None:
    seen = Seen()
    seen.add([subject, _subject("t1", NOW_S)], NOW_S, ())
    assert seen.unreadable == [subject]
    assert len(seen.waiting) == 1


def test_a_deployment_is_gone_only_after_it_was_missing_for_long_enough() -> None:
    missing = Missing()
    assert missing.gone(0.0, {"add", "sub"}, {"sub"}) == frozenset()
    assert missing.gone(GONE_AFTER_S - 1, {"add", "sub"}, {"sub"}) == frozenset()
    assert missing.gone(GONE_AFTER_S, {"add", "sub"}, {"sub"}) == {"add"}


def test_a_deployment_that_was_there_in_between_is_missing_anew() -> None:
    missing = Missing()
    missing.gone(0.0, {"add"}, ())
    missing.gone(20.0, {"add"}, {"add"})
    assert missing.gone(GONE_AFTER_S + 1, {"add"}, ()) == frozenset()


@pytest.mark.parametrize(
    ("took_s", "more", "pause_s"),
    [(0.01, False, 10), (0.7, False, 14), (60, False, 120), (2.0, True, 2.0)],
)
def test_sweeps_take_a_small_share_of_the_time(took_s: float, more: bool, pause_s: float) -> None:
    assert findings.pause_s(took_s, more) == pytest.approx(pause_s)


def _waited(**fields: object) -> TaskEnvelope:
    name = "deployments/add/tasks/t1"
    task = Task(name=name, batch="b", tenant="acme", callback_url="https://a.b/", **fields)
    task.result_ttl.FromSeconds(60)
    return TaskEnvelope(task_id="t1", deployment="add", task=task)


def test_what_is_known_of_attempts_stays_with_a_task_that_is_ended() -> None:
    attempt = TaskAttempt(replica_id="r1", outcome=OUTCOME_INTERNAL, error="out of memory")
    attempt.start_time.FromSeconds(7)
    progress = TaskProgress(attempts=[attempt], failed_count=4)
    task = findings.end(Repair.ORPHANED, _waited(), progress, NOW_S)
    assert task.state == Task.STATE_FAILED
    assert task.outcome == OUTCOME_NOT_FOUND
    assert task.error == "the deployment was deleted; last error: out of memory"
    assert (task.attempt_count, len(task.attempts), task.start_time.seconds) == (4, 1, 7)
    assert (task.tenant, task.callback_url) == ("acme", "https://a.b/")
    assert task.end_time == timestamp(NOW_S)


def test_an_expired_task_says_that_its_time_was_over() -> None:
    waited = _waited()
    waited.task.ttl.FromSeconds(30)
    task = findings.end(Repair.EXPIRED, waited, TaskProgress(), NOW_S)
    assert task.state == Task.STATE_EXPIRED
    assert task.outcome == OUTCOME_DEADLINE_EXCEEDED
    assert task.error == "not ended within its ttl, 30 s"


def test_a_task_that_cannot_be_read_ends_as_what_its_subject_says() -> None:
    one = Queued.of(_subject("t1", NOW_S))
    assert one is not None
    waited = findings.envelope(one.task, b"\xff\xff\xff")
    task = findings.end(Repair.EXPIRED, waited, TaskProgress(), NOW_S)
    assert task.name == "deployments/add/tasks/t1"
    assert task.batch == "b"
    assert task.result_ttl.ToSeconds() == findings.DEFAULT_RESULT_TTL_S


def test_an_end_is_left_alone_while_who_wrote_it_may_go_on() -> None:
    task = Task(end_time=timestamp(NOW_S))
    assert not findings.has_settled(task, NOW_S + findings.SETTLED_AFTER_S - 0.1)
    assert findings.has_settled(task, NOW_S + findings.SETTLED_AFTER_S)


def test_a_dead_letter_outlives_the_end_of_its_task() -> None:
    dead = DeadTask(task=Task(state=Task.STATE_FAILED, end_time=timestamp(NOW_S)))
    dead.task.result_ttl.FromSeconds(60)
    assert findings.should_have_ended(dead, NOW_S + 59)
    assert not findings.should_have_ended(dead, NOW_S + 61)
