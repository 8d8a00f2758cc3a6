"""A collector that is away or slow costs spans, and nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.runtime import span_export, telemetry
from tests.support.eventually import eventually
from tests.support.forebay_up import ROOT
from tests.support.free_port import free_address
from tests.support.otlp_receiver import OtlpReceiver

ROOM = 64


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(ROOM))
        patch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        yield patch
    telemetry.shutdown()
    telemetry.configure("test")


def make(count: int) -> float:
    """Makes spans; returns how many seconds that took."""
    began = time.perf_counter()
    for _ in range(count):
        span = telemetry.span("work", "INTERNAL", {})
        assert span is not None
        span.end()
    return time.perf_counter() - began


def export() -> span_export.SpanExport:
    found = telemetry.export()
    assert found is not None
    return found


async def test_a_collector_that_does_not_answer_keeps_nobody_waiting(
    exporting: pytest.MonkeyPatch,
) -> None:
    with OtlpReceiver() as receiver:
        exporting.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        exporting.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
        telemetry.configure("test")
        receiver.answering.clear()
        # Some hundredths of a second; whoever waited for the collector would take 30 s.
        assert make(20 * ROOM) < 10.0
        lost = export()
        assert lost.dropped_count >= 20 * ROOM - 2 * ROOM
        assert lost.dropped_count < 20 * ROOM
        receiver.answering.set()
        make(1)
        await eventually(lambda: receiver.spans)


async def test_a_collector_that_is_away_costs_the_spans_of_that_time_only(
    exporting: pytest.MonkeyPatch,
) -> None:
    port = int(free_address().rpartition(":")[2])
    exporting.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    telemetry.configure("test")
    make(8)
    await eventually(lambda: export().undelivered_count == 8, timeout_s=60)
    with OtlpReceiver(port) as receiver:

        def arrives() -> bool:
            make(1)
            return bool(receiver.spans)

        await eventually(arrives, timeout_s=90)


async def test_the_end_of_a_process_waits_for_no_collector_for_long(
    exporting: pytest.MonkeyPatch,
) -> None:
    with OtlpReceiver() as receiver:
        exporting.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        exporting.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
        telemetry.configure("test")
        receiver.answering.clear()
        make(ROOM)
        began = time.monotonic()
        telemetry.shutdown()
        # Less than the 30 s that it would wait for an answer.
        assert time.monotonic() - began < span_export.FLUSH_S + 15


async def test_what_waits_is_sent_before_a_process_ends(exporting: pytest.MonkeyPatch) -> None:
    with OtlpReceiver() as receiver:
        exporting.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        exporting.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
        exporting.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
        exporting.setattr(span_export, "FLUSH_S", 30.0)
        exporting.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer one")
        exporting.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
        telemetry.configure("test")
        make(3)
        telemetry.shutdown()
        assert len(receiver.spans) == 3
        assert receiver.metadata["authorization"] == "Bearer one"
        assert receiver.resources["forebay-test"]["deployment.environment.name"] == "lab"


async def test_spans_go_by_http_where_the_protocol_says_so(
    exporting: pytest.MonkeyPatch,
) -> None:
    came: list[ExportTraceServiceRequest] = []

    async def post(request: web.Request) -> web.Response:
        assert request.headers["content-type"] == "application/x-protobuf"
        came.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", post)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        exporting.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        exporting.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        exporting.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
        telemetry.configure("test")
        make(1)
        await eventually(lambda: came)
    finally:
        await runner.cleanup()
    (group,) = came[0].resource_spans
    assert [span.name for span in group.scope_spans[0].spans] == ["work"]


def test_a_protocol_that_there_is_none_for_is_named_with_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.router.main"],
        cwd=ROOT,
        env={
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon",
        },
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 2
    assert "'carrier-pigeon'; legal are grpc and http/protobuf" in done.stderr
