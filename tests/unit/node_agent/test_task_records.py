"""What is written down of tasks and of who they were done for."""

from forebay.v1.envelope_pb2 import OUTCOME_INTERNAL, OUTCOME_OK
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope, TaskProgress
from services.node_agent.tasks import records
from services.node_agent.tasks.ongoing_task import OngoingTask
from services.node_agent.tasks.usage import MAX_KEYS, UsageSums


def ongoing(delivery: int = 1, known: TaskProgress | None = None) -> OngoingTask:
    task = Task(name="deployments/d/tasks/t1", state=Task.STATE_QUEUED, labels={"a": "b"})
    return OngoingTask(
        envelope=TaskEnvelope(task_id="t1", deployment="d", task=task, body=b"x"),
        ack_subject="ack",
        delivery=delivery,
        delivered_s=0,
        progress_s=0,
        limit_s=1,
        known=known or TaskProgress(),
        started_s=1,
        started_server_s=1000,
    )


def failed_once(task: OngoingTask, error: str = "no") -> TaskProgress:
    last = records.attempt(task, 1001, "r-1", "n-1", OUTCOME_INTERNAL, error)
    return records.after_failure(task, last, next_s=1002)


def test_a_task_ends_with_all_its_attempts() -> None:
    known = failed_once(ongoing())
    task = ongoing(delivery=2, known=known)
    ended = records.succeeded(task, records.attempt(task, 1003, "r-2", "n-2", OUTCOME_OK, ""))
    assert ended.state == Task.STATE_SUCCEEDED
    assert [a.replica_id for a in ended.attempts] == ["r-1", "r-2"]
    assert (ended.attempt_count, ended.end_time.seconds, ended.start_time.seconds) == (
        2,
        1003,
        1000,
    )
    assert ended.labels == {"a": "b"}


def test_the_last_ten_attempts_are_kept_and_all_are_counted() -> None:
    known = TaskProgress()
    for number in range(14):
        known = failed_once(ongoing(number + 1, known), f"error {number}")
    assert known.failed_count == 14
    assert [a.error for a in known.attempts] == [f"error {n}" for n in range(4, 14)]
    task = ongoing(15, known)
    last = records.attempt(task, 1003, "r", "n", OUTCOME_INTERNAL, "the end")
    dead = records.failed(task, last)
    assert dead.task.attempt_count == 15
    assert len(dead.task.attempts) == 10
    assert dead.task.error == "the end"
    assert dead.envelope.body == b"x"


def test_an_error_is_kept_to_a_thousand_characters() -> None:
    known = failed_once(ongoing(), "e" * 5000)
    assert len(known.attempts[0].error) == 1000
    assert known.attempts[0].error.endswith("…")


def test_a_loss_in_company_does_not_count_and_makes_the_next_run_alone() -> None:
    known = records.after_loss(ongoing(delivery=3))
    assert (known.alone, known.failed_count, known.lost_count, known.delivery_count) == (
        True,
        0,
        1,
        3,
    )


def test_refusals_are_the_deliveries_that_were_neither_failures_nor_losses() -> None:
    known = records.given_back(ongoing(delivery=2, known=failed_once(ongoing())))
    assert records.refused_count(known) == 1
    known = records.after_loss(ongoing(delivery=3, known=known))
    assert records.refused_count(known) == 1


def test_a_task_that_was_tried_and_expired_says_what_went_wrong_last() -> None:
    ended = records.expired(ongoing(2, failed_once(ongoing(), "disk full")), now_s=2000)
    assert ended.state == Task.STATE_EXPIRED
    assert "ttl" in ended.error
    assert "disk full" in ended.error
    assert ended.attempt_count == 1


def test_usage_is_summed_by_tenant_and_batch() -> None:
    sums = UsageSums()
    sums.add("d", "ann", "b1", 2.0, slots=4, gpus=0.5)
    sums.add("d", "ann", "b1", 2.0, slots=4, gpus=0.5)
    sums.add("d", "bob", "", 1.0, slots=1, gpus=0)
    ann, bob = sums.take()
    assert (ann.tenant, ann.batch, ann.attempt_count) == ("ann", "b1", 2)
    assert ann.busy_time.ToMilliseconds() == 4000
    assert ann.replica_time.ToMilliseconds() == 1000
    assert ann.gpu_time.ToMilliseconds() == 500
    assert (bob.tenant, bob.replica_time.ToMilliseconds(), bob.gpu_time.ToMilliseconds()) == (
        "bob",
        1000,
        0,
    )
    assert sums.take() == []


def test_usage_says_when_it_holds_as_much_as_it_may() -> None:
    sums = UsageSums()
    for number in range(MAX_KEYS):
        assert not sums.full
        sums.add("d", "t", f"b{number}", 1, 1, 1)
    assert sums.full
