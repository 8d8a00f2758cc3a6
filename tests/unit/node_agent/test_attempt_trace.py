"""Of an attempt that is not recorded, nothing is made, and Triton is told nothing."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.envelope_pb2 import RequestEnvelope
from services.node_agent import replica_states
from services.node_agent.ongoing import Ongoing
from services.node_agent.traces.replica_trace import CALLS, ReplicaTrace
from services.node_agent.traces.tracing import NO_TRACE, AttemptTrace
from services.runtime import telemetry
from services.runtime.clock import SystemClock

TRACE = "ab" * 16
READY_S = 100.0


class FixedClock(SystemClock):
    def monotonic_s(self) -> float:
        return READY_S


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Spans are made, and kept here."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    kept = InMemorySpanExporter()
    monkeypatch.setattr("services.runtime.span_export.exporter", lambda: kept)
    telemetry.configure("test")
    yield kept
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    telemetry.configure("test")


@pytest.fixture
def replica() -> ReplicaTrace:
    made = Assignment(replica_id="echo-1", scale_decision="deployments/echo/decisions/7")
    replica = ReplicaTrace(made, "echo", "node-1", FixedClock())
    replica.address = "127.0.0.1:8001"
    return replica


def spans(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """What was made until now, by name; of two of a name, the later one."""
    export = telemetry.export()
    assert export is not None
    export.force_flush()
    return {span.name: span for span in kept.get_finished_spans()}


def request(flags: str = "01", waited_s: float = 1.0, delivered_s: float = 200.0) -> Ongoing:
    envelope = RequestEnvelope(request_id="r1", traceparent=f"00-{TRACE}-{'cd' * 8}-{flags}")
    return Ongoing("ack", envelope, delivered_s, delivered_s + 10, delivered_s, waited_s, 1)


def test_off_nothing_is_made(replica: ReplicaTrace) -> None:
    trace = AttemptTrace.start(request(), replica)
    assert trace is NO_TRACE
    assert trace.call_triton() is None


@pytest.mark.usefixtures("traced")
def test_triton_gets_the_context_of_a_call_that_is_sampled_and_of_no_other(
    replica: ReplicaTrace,
) -> None:
    assert AttemptTrace.start(request("00"), replica) is NO_TRACE
    sampled = AttemptTrace.start(request(), replica)
    context = dict(sampled.call_triton() or ())
    assert telemetry.trace_id(context["traceparent"]) == TRACE
    assert CALLS.take(TRACE, "echo-1") == "echo"


@pytest.mark.usefixtures("traced")
def test_only_what_was_stored_before_a_replica_was_ready_waited_for_its_start(
    replica: ReplicaTrace,
) -> None:
    replica.say("fetching the model")
    replica.say("Triton is loading the model")
    replica.become(replica_states.READY, "")
    before = replica.waited(READY_S - 0.1)
    assert before is not None
    assert before.attributes == {
        "forebay.cold_start": True,
        "forebay.scale_decision": "deployments/echo/decisions/7",
    }
    assert len(before.links) == 1
    assert replica.waited(READY_S + 0.1) is None


@pytest.mark.usefixtures("traced")
def test_a_triton_that_was_adopted_has_no_cold_start(replica: ReplicaTrace) -> None:
    replica.say("canary inference")
    replica.become(replica_states.READY, "")
    assert replica.waited(0.0) is None


def test_a_start_that_fails_is_an_error_and_the_next_a_trace_of_its_own(
    traced: InMemorySpanExporter,
) -> None:
    decided = f"00-{TRACE}-{'cd' * 8}-01"
    made = Assignment(replica_id="echo-1", generation=3, traceparent=decided)
    replica = ReplicaTrace(made, "echo", "node-1", FixedClock())
    replica.say("fetching the model")
    replica.say("Triton is loading the model")
    replica.failed("Triton did not start: no such file")
    first = spans(traced)
    for name in ("cold start", "triton load"):
        assert first[name].status.description == "Triton did not start: no such file"
        assert dict(first[name].attributes or {})["error.type"] == "start_failed"
    assert "error.type" not in dict(first["model fetch"].attributes or {})
    start = first["cold start"]
    assert start.parent is not None
    assert f"{start.context.trace_id:032x}" == TRACE
    assert replica.waited(0.0) is None
    replica.say("fetching the model")
    replica.become(replica_states.READY, "")
    again = spans(traced)["cold start"]
    assert again.parent is None
    assert [f"{link.context.span_id:016x}" for link in again.links] == ["cd" * 8]
    said = dict(again.attributes or {})
    assert (said["forebay.start.number"], said["forebay.generation"]) == (2, 3)


def test_a_replica_that_is_told_to_stop_while_it_starts_leaves_no_open_span(
    traced: InMemorySpanExporter, replica: ReplicaTrace
) -> None:
    replica.say("fetching the model")
    replica.become(replica_states.DRAINING, "")
    start = spans(traced)["cold start"]
    assert start.status.description == "it was told to stop before it was READY"
