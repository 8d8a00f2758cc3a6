"""In place of Jaeger: takes spans over OTLP/gRPC and gives them back over HTTP as JSON lines.

    GET /spans?trace_id=…   the spans of a trace: service, name, trace, parent, span, links, …
    GET /services           names of the services that have sent spans

Runs in a container of its own from the image of the services, which has all that it needs.
"""

import json
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

MAX_SPANS = 100_000

_spans: list[dict[str, Any]] = []
_lock = threading.Lock()


def _values(attributes: Any) -> dict[str, Any]:
    return {
        a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in attributes
    }


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = [
            {
                "service": _values(resource.resource.attributes).get("service.name", ""),
                "name": span.name,
                "trace": span.trace_id.hex(),
                "span": span.span_id.hex(),
                "parent": span.parent_span_id.hex(),
                "links": [link.trace_id.hex() for link in span.links],
                "attributes": {k: str(v) for k, v in _values(span.attributes).items()},
                "error": span.status.code == 2,
            }
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with _lock:
            _spans.extend(found)
            del _spans[:-MAX_SPANS]
        return trace_service_pb2.ExportTraceServiceResponse()


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = urlparse(self.path)
        wanted = parse_qs(asked.query).get("trace_id", [""])[0]
        with _lock:
            spans = list(_spans)
        found: list[Any] = sorted({span["service"] for span in spans})
        if asked.path == "/spans":
            found = [span for span in spans if wanted in ("", span["trace"])]
        body = json.dumps(found).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
    server.add_insecure_port("0.0.0.0:4317")
    server.start()
    ThreadingHTTPServer(("0.0.0.0", 16686), Pages).serve_forever()


if __name__ == "__main__":
    main()
