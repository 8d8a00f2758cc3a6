"""What callers may say about tasks and maps."""

import pytest

from forebay.errors import ForebayError, InvalidRequestError
from forebay.task_client import requests
from forebay.task_client.options import TaskOptions, task_of
from forebay.task_client.plan import MapOptions, plan_of
from forebay.task_client.status import task_name
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.task_pb2 import Task


def test_options_left_out_are_left_to_the_router() -> None:
    assert task_of() == Task(priority=Task.PRIORITY_NORMAL)
    assert task_of(max_retries=None, ttl_s=None, labels=None) == task_of()


def test_options_are_durations_labels_and_numbers_of_the_message() -> None:
    task = task_of(priority="low", max_retries=0, min_backoff_s=0.25, ttl_s=60, labels={"run": "7"})
    assert task.priority == Task.PRIORITY_LOW
    assert task.HasField("max_retries")
    assert task.min_backoff.ToMilliseconds() == 250
    assert task.ttl.seconds == 60
    assert dict(task.labels) == {"run": "7"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": "urgent"}, "priority = 'urgent': legal are high, normal, low"),
        ({"ttl_s": -1}, "ttl_s = -1"),
        ({"attempt_timeout_s": float("nan")}, "attempt_timeout_s = nan"),
        ({"max_retries": 1e9}, "max_retries = 1000000000.0: legal is a whole number"),
        ({"labels": {"a": 1}}, "labels = .*: legal is a mapping"),
        ({"labels": "a=1"}, "labels = .a=1.: legal is a mapping"),
        ({"callback_url": 3}, "callback_url = 3: legal is a URL"),
    ],
)
def test_an_option_that_no_task_can_have_is_named(options: TaskOptions, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        task_of(**options)


def test_an_unknown_option_is_a_mistake_in_the_code() -> None:
    with pytest.raises(TypeError, match="'retries' is no option of a task"):
        plan_of("d", None, {"retries": 3})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size = 0: legal is 1"),
        ({"batch_size": 10, "max_in_flight": 9}, "max_in_flight = 9: legal is 10"),
        ({"patience_s": -1}, "patience_s = -1"),
    ],
)
def test_an_option_that_no_map_can_have_is_named(options: MapOptions, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        plan_of("d", None, options)


def test_a_map_without_a_batch_gets_a_new_one_that_is_legal() -> None:
    first, second = plan_of("d", None, {}), plan_of("d", None, {})
    assert first.batch != second.batch
    assert not first.resumes
    assert plan_of("d", first.batch, {}).resumes
    with pytest.raises(InvalidRequestError, match="'Nightly': a batch is 1 to 63"):
        plan_of("d", "Nightly", {})


def test_a_submission_without_a_key_gets_one_so_that_it_can_be_repeated() -> None:
    request = InferRequest(model_name="d")
    first = requests.submission(request, None, None, None, {}).task
    second = requests.submission(request, None, None, None, {}).task
    assert first.idempotency_key
    assert first.idempotency_key != second.idempotency_key
    assert requests.submission(request, None, None, "mine", {}).task.idempotency_key == "mine"


def test_a_position_in_a_batch_is_key_enough() -> None:
    task = requests.submission(InferRequest(model_name="d"), "b", 3, None, {}).task
    assert (task.batch, task.batch_index, task.idempotency_key) == ("b", 3, "")


def test_a_list_names_its_deployment_and_states() -> None:
    listing = requests.listing("d", ("queued", "FAILED"), "b", {"run": "7"})
    assert listing.parent == "deployments/d"
    assert list(listing.states) == [Task.STATE_QUEUED, Task.STATE_FAILED]
    assert requests.listing(None, (), None, None).parent == ""
    with pytest.raises(InvalidRequestError, match="'done' is no state of a task"):
        requests.listing("d", ("done",), None, None)
    with pytest.raises(InvalidRequestError, match="cannot name a deployment"):
        requests.purge("D", (), None, dry_run=True)


def test_tasks_are_named_in_full_or_in_short() -> None:
    full = "deployments/d/tasks/t1"
    assert task_name("d/t1") == task_name(full) == full
    for wrong in ("t1", "d/", "d/t1/x", "deployments/d/t1", "D/t1"):
        with pytest.raises(ForebayError, match="is not a task"):
            task_name(wrong)
