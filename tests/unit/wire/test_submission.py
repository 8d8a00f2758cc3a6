"""What a submitted task must be, and what is made of it."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.task_pb2 import SubmitTaskRequest, Task
from services.wire import names
from services.wire.limits import MAX_BODY_BYTES
from services.wire.outcomes import OutcomeError
from services.wire.tasks.submission import envelope_of, is_keyed, is_known_for_life

NOW_S = 1_800_000_000.25
ECHO = Deployment(name="deployments/echo")


def submitted(**options: Any) -> SubmitTaskRequest:
    request = InferRequest(model_name="echo", raw_input_contents=[b"12345678"])
    request.inputs.add(name="IN", datatype="UINT8", shape=[8])
    return SubmitTaskRequest(request=request, task=Task(**options))


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(value * 1e9))
    return duration


def refusal(request: SubmitTaskRequest) -> str:
    with pytest.raises(OutcomeError) as caught:
        envelope_of(request, ECHO, "default", NOW_S)
    assert caught.value.outcome == OUTCOME_INVALID_ARGUMENT
    assert len(caught.value.message) < 400
    return caught.value.message


def test_every_option_is_filled_in() -> None:
    envelope = envelope_of(submitted(), ECHO, "acme", NOW_S)
    task = envelope.task
    assert task.name == f"deployments/echo/tasks/{envelope.task_id}"
    assert (task.state, task.priority) == (Task.STATE_QUEUED, Task.PRIORITY_NORMAL)
    assert (task.tenant, task.max_retries) == ("acme", 3)
    durations = [
        getattr(task, name).ToSeconds()
        for name in ("min_backoff", "max_backoff", "attempt_timeout", "ttl", "result_ttl")
    ]
    assert durations == [1, 60, 60, 86_400, 86_400]
    assert task.create_time.ToNanoseconds() == int(NOW_S * 1e9)
    assert task.expire_time.ToNanoseconds() == int((NOW_S + 86_400) * 1e9)
    assert InferRequest.FromString(envelope.body) == submitted().request


def test_an_attempt_may_take_as_long_as_the_deployment_allows() -> None:
    deployment = Deployment(name="deployments/echo", request_timeout=seconds(2.5))
    task = envelope_of(submitted(), deployment, "default", NOW_S).task
    assert task.attempt_timeout.ToMilliseconds() == 2500


def test_the_longest_pause_is_not_below_a_long_shortest_one() -> None:
    task = envelope_of(submitted(min_backoff=seconds(600)), ECHO, "default", NOW_S).task
    assert task.max_backoff.ToSeconds() == 600


def test_what_is_output_only_is_passed_over() -> None:
    made = submitted(
        name="x", state=Task.STATE_FAILED, tenant="other", error="e", attempt_count=9, retry_of="y"
    )
    made.task.result.model_name = "z"
    task = envelope_of(made, ECHO, "default", NOW_S).task
    assert (task.error, task.attempt_count, task.retry_of) == ("", 0, "")
    assert task.tenant == "default"
    assert not task.HasField("result")


def test_the_trace_of_the_call_is_the_tasks() -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    envelope = envelope_of(submitted(), ECHO, "default", NOW_S, parent, "v=1")
    assert envelope.task.trace_id == "a" * 32
    assert (envelope.traceparent, envelope.tracestate) == (parent, "v=1")


def test_ids_without_a_key_differ_and_sort_by_time() -> None:
    ids = [envelope_of(submitted(), ECHO, "default", NOW_S + n).task_id for n in range(50)]
    assert ids == sorted(set(ids))
    assert all(names.is_id(each) and each.startswith("t") and len(each) == 26 for each in ids)


@pytest.mark.parametrize(
    "options", [{"idempotency_key": "k/ä 1\n"}, {"batch": "b", "batch_index": 0}]
)
def test_a_key_is_an_id(options: dict[str, Any]) -> None:
    first = envelope_of(submitted(**options), ECHO, "default", NOW_S)
    again = envelope_of(submitted(**options), ECHO, "default", NOW_S + 1)
    other = envelope_of(submitted(**options), ECHO, "other", NOW_S)
    assert is_keyed(first.task)
    assert first.task_id == again.task_id != other.task_id
    assert first.task_id.startswith("k")
    assert names.is_id(first.task_id)
    assert first.task.content_digest == again.task.content_digest


def test_a_failed_task_is_tried_again_as_one_task() -> None:
    def retried(failed: Task) -> Task:
        made = submitted(batch="b", batch_index=1)
        return envelope_of(made, ECHO, "default", NOW_S + 9, retry_of=failed).task

    options: list[dict[str, Any]] = [{}, {"batch": "b", "batch_index": 1}]
    for failed in [envelope_of(submitted(**each), ECHO, "default", NOW_S).task for each in options]:
        first, again = retried(failed), retried(failed)
        assert first.name == again.name != failed.name
        assert first.retry_of == failed.name
        assert (first.batch, first.batch_index) == ("b", 1)
        assert is_known_for_life(first)
        assert names.is_id(first.name.rpartition("/")[2])
        purged_and_failed_again = Task(name=failed.name, create_time=first.create_time)
        assert retried(purged_and_failed_again).name != first.name


def test_no_two_keys_are_one() -> None:
    options: list[dict[str, Any]] = [
        {"idempotency_key": "b\n0"},
        {"batch": "b", "batch_index": 0},
        {"batch": "b", "batch_index": 1},
        {"batch": "b-1", "batch_index": 0},
        {"idempotency_key": "batch\nb\n0"},
    ]
    made = {envelope_of(submitted(**each), ECHO, "default", NOW_S).task_id for each in options}
    assert len(made) == len(options)


def test_a_task_in_a_batch_without_a_position_is_not_keyed() -> None:
    assert not is_keyed(envelope_of(submitted(batch="b"), ECHO, "default", NOW_S).task)


def test_another_request_or_option_is_another_content() -> None:
    def digest(change: Callable[[SubmitTaskRequest], object]) -> bytes:
        made = submitted(idempotency_key="k")
        change(made)
        return envelope_of(made, ECHO, "default", NOW_S).task.content_digest

    def other_input(made: SubmitTaskRequest) -> None:
        made.request.raw_input_contents[0] = b"87654321"

    def other_option(made: SubmitTaskRequest) -> None:
        made.task.max_retries = 0

    def output_only(made: SubmitTaskRequest) -> None:
        made.task.error = "said before"

    same = digest(lambda _: None)
    assert digest(output_only) == same
    assert len({same, digest(other_input), digest(other_option)}) == 3


@pytest.mark.parametrize("forwards", [True, False])
def test_the_order_of_parameters_makes_no_other_content(forwards: bool) -> None:
    keys = [f"p{n}" for n in range(20)]
    digests = set()
    for order in (keys, keys[::-1]) if forwards else (keys[::-1], keys):
        made = submitted(idempotency_key="k")
        for key in order:
            made.request.parameters[key].int64_param = 1
            made.task.labels.update({key[:2]: "v"})
        digests.add(envelope_of(made, ECHO, "default", NOW_S).task.content_digest)
    assert len(digests) == 1


BAD: list[tuple[dict[str, Any], str]] = [
    ({"batch": "A"}, "task.batch is 'A'"),
    ({"batch": "-"}, "task.batch is '-'"),
    ({"batch": "a.b"}, "task.batch is 'a.b'"),
    ({"batch": "x" * 64}, "1 to 63"),
    ({"batch_index": 1}, "name the batch"),
    ({"batch": "b", "batch_index": -1}, "task.batch_index is -1"),
    ({"labels": {f"k{n}": "" for n in range(17)}}, "task.labels has 17 entries"),
    ({"labels": {"": "x"}}, "key ''"),
    ({"labels": {"k" * 64: "x"}}, "64 characters"),
    ({"labels": {"k": "v" * 64}}, "task.labels['k']"),
    ({"max_retries": -1}, "task.max_retries is -1; legal is 0 to 20"),
    ({"max_retries": 21}, "task.max_retries is 21; legal is 0 to 20"),
    ({"priority": 4}, "task.priority is 4"),
    ({"priority": -1}, "task.priority is -1"),
    ({"min_backoff": seconds(-1)}, "task.min_backoff is -1 s; legal is 0 s to 3600 s"),
    ({"min_backoff": seconds(3600.5)}, "task.min_backoff is 3600.5 s"),
    ({"max_backoff": seconds(86_401)}, "task.max_backoff is 86401 s; legal is 0 s to 86400 s"),
    ({"min_backoff": seconds(3), "max_backoff": seconds(2)}, "less than task.min_backoff"),
    ({"attempt_timeout": seconds(0)}, "task.attempt_timeout is 0 s; legal is 0.001 s"),
    ({"attempt_timeout": seconds(90_000)}, "task.attempt_timeout is 90000 s"),
    ({"ttl": seconds(0.5)}, "task.ttl is 0.5 s; legal is 1 s to 2592000 s"),
    ({"ttl": Duration(seconds=10, nanos=-5)}, "task.ttl"),
    ({"ttl": Duration(seconds=1, nanos=2_000_000_000)}, "task.ttl"),
    ({"result_ttl": seconds(2_592_001)}, "task.result_ttl is 2592001 s"),
    ({"idempotency_key": "k" * 256}, "256 characters; at most 255"),
    ({"callback_url": "ftp://host/"}, "task.callback_url begins with 'ftp'"),
    ({"callback_url": "https://"}, "with a host"),
    ({"callback_url": "host/path"}, "http or https"),
    ({"callback_url": "http://host:99999/"}, "http or https"),
    ({"callback_url": "http://[::1/"}, "http or https"),
    ({"callback_url": "http://host/a b"}, "printable ASCII"),
    ({"callback_url": "http://host/\r\nX: y"}, "printable ASCII"),
    ({"callback_url": "https://host/" + "x" * 2000}, "2013 characters"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_a_bad_option_is_named_with_its_value_and_what_is_legal(
    options: dict[str, Any], said: str
) -> None:
    message = refusal(submitted(**options))
    assert said in message
    assert "legal" in message or "allowed" in message or "name the batch" in message


def test_a_password_in_an_address_is_not_repeated() -> None:
    message = refusal(submitted(callback_url="https://user:secret@host/"))
    assert "without a user or a password" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "options",
    [
        {"callback_url": "ftp://host/?token=secret"},
        {"callback_url": "secret:x"},
        {"labels": {"k": "secret" * 20}},
    ],
)
def test_what_may_be_secret_is_not_repeated_since_refusals_are_logged(
    options: dict[str, Any],
) -> None:
    assert "secret" not in refusal(submitted(**options))


@pytest.mark.parametrize(
    "url", ["http://host", "https://h:8443/p?q=1#f", "http://127.0.0.1/", "HTTPS://[::1]:80/x"]
)
def test_other_addresses_pass(url: str) -> None:
    envelope = envelope_of(submitted(callback_url=url), ECHO, "default", NOW_S)
    assert envelope.task.callback_url == url


def test_the_limits_themselves_are_legal() -> None:
    made = submitted(
        batch="b" * 63,
        batch_index=2**62,
        labels={f"{n:063}": "v" * 63 for n in range(16)},
        max_retries=20,
        min_backoff=seconds(3600),
        max_backoff=seconds(86_400),
        attempt_timeout=seconds(0.001),
        ttl=seconds(1),
        result_ttl=seconds(2_592_000),
        idempotency_key="ä" * 255,
        callback_url="https://host/" + "x" * 1987,
        priority=Task.PRIORITY_LOW,
    )
    envelope = envelope_of(made, ECHO, "default", NOW_S)
    assert envelope.task.attempt_timeout.ToMilliseconds() == 1


def test_a_task_without_a_request_is_refused() -> None:
    assert "request is missing" in refusal(SubmitTaskRequest())


def test_a_key_in_the_request_itself_is_refused() -> None:
    made = submitted()
    made.request.idempotency_key = "k"
    assert "task.idempotency_key" in refusal(made)


def test_the_rules_of_requests_hold_for_tasks() -> None:
    made = submitted()
    made.request.parameters["sequence_id"].int64_param = 1
    assert "sequence_id" in refusal(made)
    made = submitted()
    made.request.raw_input_contents[0] = b"x" * MAX_BODY_BYTES
    assert "8 MiB" in refusal(made)
