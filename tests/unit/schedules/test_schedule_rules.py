"""What a schedule may be, what of it can be changed, and what is shown."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.schedule_pb2 import Schedule, ScheduleRun
from services.autoscaler.schedules import history, rules
from services.wire.status import StatusError


def schedule(**fields: object) -> Schedule:
    fields = {"when": "0 2 * * *", "request": InferRequest(model_name="model")} | fields
    return Schedule(**fields)


def refusal(made: Schedule) -> str:
    with pytest.raises(StatusError) as caught:
        rules.declared(made)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value)


def test_defaults_are_filled_in_and_nothing_else_is_taken() -> None:
    made = rules.declared(schedule(name="schedules/other", etag="x", tenant="other"))
    assert made.missed_policy == Schedule.MISSED_POLICY_SKIP
    assert made.overlap_policy == Schedule.OVERLAP_POLICY_SKIP
    assert (made.name, made.etag, made.tenant) == ("", "", "")


def test_what_is_not_legal_is_named() -> None:
    assert refusal(schedule(when="0 0 30 2 *")).startswith("when: '0 0 30 2 *' never comes")
    assert refusal(schedule(timezone="Mars")).startswith("timezone: time zone 'Mars'")
    assert refusal(schedule(request=InferRequest())).startswith("request.model_name: ''")
    large = InferRequest(model_name="model", raw_input_contents=[bytes(300 * 1024)])
    assert "a schedule's may have 262144" in refusal(schedule(request=large))
    assert "legal" not in refusal(schedule(missed_policy=9))
    assert "MISSED_POLICY_SKIP, MISSED_POLICY_RUN_ONCE" in refusal(schedule(missed_policy=9))
    assert refusal(schedule(task={"idempotency_key": "k"})).startswith("task.idempotency_key")
    assert refusal(schedule(task={"batch_index": 0})).startswith("task.batch_index = 0")
    assert refusal(schedule(task={"error": "no"})).startswith("task.error cannot be set here")
    short = {"result_ttl": {"seconds": 5}}
    assert "it must be 600 s or more" in refusal(schedule(task=short))


@pytest.mark.parametrize("name", ["schedules/", "nightly", "schedules/A", "schedules/a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(StatusError):
        rules.schedule_id(name)


def test_a_mask_changes_what_it_names() -> None:
    current = rules.declared(schedule(paused=True, timezone="Europe/Berlin"))
    changed = rules.merged(current, Schedule(), FieldMask(paths=["paused"]))
    assert (changed.paused, changed.timezone) == (False, "Europe/Berlin")
    changed = rules.merged(current, Schedule(when="0 3 * * *"), None)
    assert (changed.when, changed.paused) == ("0 3 * * *", True)
    changed = rules.merged(current, schedule(), FieldMask(paths=["*"]))
    assert (changed.paused, changed.timezone) == (False, "")
    for path in ("name", "runs", "etag", "colour", "task.ttl"):
        with pytest.raises(StatusError, match="update_mask"):
            rules.merged(current, Schedule(), FieldMask(paths=[path]))


def test_a_run_that_is_begun_is_not_shown() -> None:
    kept = rules.declared(schedule())
    history.set_undecided(kept, 7200)
    history.add(kept, history.run_of(3600, 3601.5, history.BEGUN, task="deployments/model/tasks/k"))
    shown = rules.shown("nightly", "default", kept, 4000)
    assert shown.runs == []
    assert shown.name == "schedules/nightly"
    assert shown.next_time.seconds == 7200
    assert history.begun(kept) is not None


def test_a_slot_that_passed_is_not_shown_as_to_come() -> None:
    kept = rules.declared(schedule())
    history.set_undecided(kept, 7200)
    assert rules.shown("nightly", "default", kept, 8000).next_time.seconds == 7200 + 24 * 3600


def test_the_last_run_of_a_slot_outlives_runs_by_hand() -> None:
    kept = rules.declared(schedule())
    submitted = ScheduleRun.ACTION_SUBMITTED
    history.add(kept, history.run_of(3600, 3600, submitted))
    history.add(kept, history.run_of(7200, 7200, submitted))
    for number in range(100):
        history.add(kept, history.run_of(None, 8000 + number, submitted))
    assert len(kept.runs) == history.MAX_RUNS
    assert history.decided_s(kept) == 7200
    assert kept.runs[0].fire_time.seconds == 8099
