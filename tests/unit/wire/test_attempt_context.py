"""The context of an attempt is worked out of what is known of it, by everybody the same."""

from forebay.v1.task_pb2 import TaskAttempt
from services.runtime import telemetry
from services.wire.instants import timestamp
from services.wire.tasks import attempt_context

START_S = 1_700_000_000.123456


def test_who_reads_the_record_of_an_attempt_finds_the_ids_it_was_traced_with() -> None:
    began = timestamp(START_S)
    trace, span = attempt_context.ids("echo", "t1", began.ToNanoseconds())
    record = TaskAttempt.FromString(TaskAttempt(start_time=began).SerializeToString())
    found = attempt_context.traceparent("echo", "t1", record)
    assert found == f"00-{trace:032x}-{span:016x}-01"
    assert telemetry.trace_id(found) == f"{trace:032x}"


def test_attempts_tasks_and_deployments_have_traces_of_their_own() -> None:
    ids = {
        attempt_context.ids(deployment, task, start_ns)
        for deployment in ("echo", "resnet")
        for task in ("t1", "t2")
        for start_ns in (1, 2)
    }
    assert len({trace for trace, _ in ids}) == 8
    assert len({span for _, span in ids}) == 8
