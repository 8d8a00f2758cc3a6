"""What Triton sends becomes spans of its replica, or nothing."""

import base64
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from services.node_agent.traces.recent_calls import RecentCalls
from services.node_agent.traces.triton_spans import SpanMaker

TRACE, CALL = "ab" * 16, "cd" * 8


@pytest.fixture
def maker() -> SpanMaker:
    calls = RecentCalls()
    calls.note(TRACE, "echo-1", "echo")
    return SpanMaker("node-1", calls)


def sent(replica: str = "echo-1", **changed: Any) -> dict[str, Any]:
    """One span as Triton 2.51 sends it."""
    span = {
        "traceId": TRACE,
        "spanId": "12" * 8,
        "parentSpanId": CALL,
        "name": "InferRequest",
        "kind": 2,
        "startTimeUnixNano": "1795344587379110036",
        "endTimeUnixNano": "1795344587412829581",
        "events": [
            {"name": "GRPC_WAITREAD_START", "timeUnixNano": "1795344587314842786"},
            {"name": "GRPC_SEND_START", "timeUnixNano": "1795344587412425705"},
        ],
        **changed,
    }
    resource = {"attributes": [{"key": "forebay.replica", "value": {"stringValue": replica}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}


def test_a_span_keeps_its_place_in_the_trace(maker: SpanMaker) -> None:
    (span,), dropped = maker.of(sent())
    assert dropped == 0
    assert (span.name, span.kind) == ("triton InferRequest", SpanKind.SERVER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == CALL
    assert [event.name for event in span.events] == ["GRPC_SEND_START"]
    assert dict(span.resource.attributes) == {
        "service.name": "triton",
        "service.instance.id": "echo-1",
        "forebay.replica": "echo-1",
        "forebay.node": "node-1",
        "forebay.deployment": "echo",
    }


def test_a_span_of_another_replica_is_dropped(maker: SpanMaker) -> None:
    assert maker.of(sent(replica="echo-2")) == ([], 1)


def test_a_span_of_a_trace_that_was_not_ours_is_dropped(maker: SpanMaker) -> None:
    assert maker.of(sent(traceId="ef" * 16)) == ([], 1)


def test_ids_of_the_binary_encoding_are_the_same_ids(maker: SpanMaker) -> None:
    def binary(digits: str) -> str:
        return base64.b64encode(bytes.fromhex(digits)).decode()

    request = sent(traceId=binary(TRACE), spanId=binary("12" * 8), parentSpanId=binary(CALL)) | {
        "base64": True
    }
    (span,), _ = maker.of(request)
    assert f"{span.context.trace_id:032x}" == TRACE


@pytest.mark.parametrize(
    "changed",
    [
        {"traceId": "xyz"},
        {"spanId": "0" * 16},
        {"startTimeUnixNano": "-1"},
        {"endTimeUnixNano": str(1 << 64)},
        {"attributes": [{"key": "a", "value": {"intValue": str(1 << 70)}}]},
        {"events": 7},
    ],
)
def test_what_would_spoil_a_batch_of_the_exporter_is_refused(
    maker: SpanMaker, changed: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        maker.of(sent(**changed))


def test_text_that_is_no_unicode_is_replaced(maker: SpanMaker) -> None:
    model = {"key": "triton.model_name", "value": {"stringValue": "\ud800" + "x" * 1000}}
    (span,), _ = maker.of(sent(name="said", attributes=[model]))
    assert span.attributes is not None
    said = str(span.attributes["triton.model_name"])
    assert said.startswith("?x")
    assert len(said) == 200
