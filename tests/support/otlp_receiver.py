"""A real OTLP receiver over gRPC that keeps what it is sent."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.runtime import telemetry


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans on a port the kernel chose.

    Attributes:
        spans: service and span, as they came.
        resources: what each service said of itself last.
        metadata: of the last call.
        answering: set, unless it shall keep its callers waiting.
    """

    def __init__(self, port: int = 0) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.resources: dict[str, dict[str, str]] = {}
        self.metadata: Mapping[str, str | bytes] = {}
        self.answering = threading.Event()
        self.answering.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.answering.wait(timeout=60)
        self.metadata = dict(context.invocation_metadata())
        for resource in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.resources[attributes["service.name"]] = attributes
            for scope in resource.scope_spans:
                self.spans += [(attributes["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> dict[str, tuple[str, Span]]:
        """Service and span by span name, of one trace."""
        return {
            span.name: (service, span)
            for service, span in list(self.spans)
            if span.trace_id.hex() == trace_id
        }

    def until_triton_tells(self, call: Callable[[], str]) -> None:
        """Makes calls until one's trace has Triton's own spans.

        Triton 2.51 has lost its spans of the very first call after its start, three times in some
        fifty starts on a busy machine.

        Args:
            call: makes one; returns its trace id.
        """
        for _ in range(6):
            trace_id, deadline = call(), time.monotonic() + 20
            while time.monotonic() < deadline:
                if "triton compute" in self.trace(trace_id):
                    return
                time.sleep(0.05)
        raise AssertionError("Triton sends no spans")

    def named(self, name: str) -> list[Span]:
        """All spans of a name."""
        return [span for _, span in list(self.spans) if span.name == name]

    @contextmanager
    def told_by(self, service: str) -> Iterator[None]:
        """Has this process send its spans here, in the block, as a service."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{self.port}")
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
            telemetry.configure(service)
        try:
            yield
        finally:
            telemetry.shutdown()
            # Off again: the environment names no exporter now.
            telemetry.configure(service)

    def __enter__(self) -> "OtlpReceiver":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answering.set()
        self._server.stop(0).wait()


def attributes(span: Span) -> dict[str, str | int | float | bool]:
    """Attributes of a span, or of a link, by name."""
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }


def failed(span: Span) -> bool:
    """Whether a span is marked as an error."""
    return bool(span.status.code == span.status.STATUS_CODE_ERROR)
