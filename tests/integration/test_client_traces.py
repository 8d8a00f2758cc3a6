"""What the clients tell a trace collector, and what they send on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)

from forebay.v1.inference_pb2 import InferRequest, InferResponse
from tests.support.forebay_up import ROOT


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes OTLP spans; on the same port, a router that knows one deployment."""

    def __init__(self) -> None:
        self.spans: list[object] = []
        self.services: set[str] = set()
        self.traceparents: list[str] = []

    def Export(self, request: object, context: grpc.ServicerContext) -> object:
        for resource in request.resource_spans:
            said = {item.key: item.value.string_value for item in resource.resource.attributes}
            self.services.add(said["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def infer(self, request: InferRequest, context: grpc.ServicerContext) -> InferResponse:
        self.traceparents += [
            value for key, value in context.invocation_metadata() if key == "traceparent"
        ]
        context.set_trailing_metadata((("forebay-request-id", "r" * 32),))
        if request.model_name != "known":
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        return InferResponse(model_name="known", final=True)


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    infer = grpc.unary_unary_rpc_method_handler(
        collector.infer,
        request_deserializer=InferRequest.FromString,
        response_serializer=InferResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler("forebay.v1.RouterService", {"Infer": infer})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"127.0.0.1:{port}"
    server.stop(None).wait()


def run_program(program: str, address: str, endpoint: str = "") -> str:
    """Runs a user's program in a process of its own: tracing is set up once per process."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "FOREBAY_"))
    }
    environment |= {"FOREBAY_ROUTER": address, "OTEL_EXPORTER_OTLP_INSECURE": "true"}
    if endpoint:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{endpoint}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CALL = "import forebay\nwith forebay.Client() as c: print(c.infer('known', {}).trace_id)"

CALLER_WITH_A_SPAN = """
import asyncio, forebay
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

async def main():
    async with forebay.AsyncClient() as client:
        with TracerProvider().get_tracer("mine").start_as_current_span("work") as span:
            await client.infer("known", {})
            print(f"{span.get_span_context().trace_id:032x}")

asyncio.run(main())
"""

CALLER_WITH_A_PROVIDER = """
import forebay
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint="ENDPOINT")))
trace.set_tracer_provider(provider)
with forebay.Client() as client, provider.get_tracer("mine").start_as_current_span("work"):
    print(client.infer("known", {}).trace_id)
"""

UNKNOWN = """
import forebay
with forebay.Client() as client:
    try:
        client.infer("nowhere", {})
    except forebay.DeploymentNotFoundError as error:
        print(error.request_id, error.trace_id)
"""


def test_a_call_is_a_client_span_whose_context_goes_to_the_router(
    collector: tuple[Collector, str],
) -> None:
    took, address = collector
    trace_id = run_program(CALL, address, endpoint=address)
    (span,) = took.spans
    assert span.trace_id.hex() == trace_id
    assert span.kind == span.SPAN_KIND_CLIENT
    (traceparent,) = took.traceparents
    assert traceparent.rpartition("-")[0] == f"00-{trace_id}-{span.span_id.hex()}"
    assert int(traceparent.rpartition("-")[2], 16) & 1, "sampled"
    attributes = {item.key: item.value.string_value for item in span.attributes}
    assert attributes["forebay.deployment"] == "known"
    assert attributes["forebay.request.id"] == "r" * 32


@pytest.mark.parametrize("exporting", [True, False])
def test_the_callers_active_span_is_the_parent(
    collector: tuple[Collector, str], exporting: bool
) -> None:
    took, address = collector
    trace_id = run_program(CALLER_WITH_A_SPAN, address, endpoint=address if exporting else "")
    assert [traceparent.split("-")[1] for traceparent in took.traceparents] == [trace_id]
    assert [span.trace_id.hex() for span in took.spans] == ([trace_id] if exporting else [])


def test_a_program_with_a_provider_of_its_own_has_the_call_among_its_spans(
    collector: tuple[Collector, str],
) -> None:
    took, address = collector
    program = CALLER_WITH_A_PROVIDER.replace("ENDPOINT", f"http://{address}")
    trace_id = run_program(program, address)
    spans = {span.name: span for span in took.spans}
    assert set(spans) == {"work", "forebay.v1.RouterService/Infer"}
    assert {span.trace_id.hex() for span in took.spans} == {trace_id}
    call = spans["forebay.v1.RouterService/Infer"]
    assert call.parent_span_id == spans["work"].span_id
    assert took.services == {"shop"}


def test_a_failed_call_is_a_failed_span_and_its_error_has_both_ids(
    collector: tuple[Collector, str],
) -> None:
    took, address = collector
    request_id, trace_id = run_program(UNKNOWN, address, endpoint=address).split()
    (span,) = took.spans
    assert (request_id, trace_id) == ("r" * 32, span.trace_id.hex())
    assert span.status.code == span.status.STATUS_CODE_ERROR


def test_without_an_exporter_nothing_is_sent_and_no_sdk_is_loaded(
    collector: tuple[Collector, str],
) -> None:
    took, address = collector
    loaded = CALL + "\nimport sys; print('opentelemetry.sdk' in sys.modules)"
    assert run_program(loaded, address) == "None\nFalse"
    assert (took.spans, took.traceparents) == ([], [])
