"""Traces: W3C context always travels; spans are made only where an exporter is configured.

The standard variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) turns it on,
OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG choose what is kept, OTEL_SDK_DISABLED=true turns it
off. Off, the SDK is not even imported, and `span()` is one comparison.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, SpanKind

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

_tracing: "_Tracing | None" = None


class _Tracing:
    """The SDK, imported and set up."""

    def __init__(self, service: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", f"forebay-{service.replace('_', '-')}")
        self.provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("forebay")
        self.propagator = TraceContextTextMapPropagator()
        self.kinds = {kind.name: kind for kind in trace.SpanKind}
        self.set_span_in_context = trace.set_span_in_context
        self.error_status = trace.Status(trace.StatusCode.ERROR)
        self._trace = trace

    def link(self, carrier: Mapping[str, str]) -> "Link":
        """A link to the W3C context in a carrier."""
        there = self._trace.get_current_span(self.propagator.extract(carrier))
        return self._trace.Link(there.get_span_context())


def configure(service: str) -> None:
    """Turns tracing on if the environment names an exporter."""
    global _tracing
    wanted = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    _tracing = _Tracing(service) if wanted and not disabled else None


def shutdown() -> None:
    """Exports what is left."""
    if _tracing is not None:
        _tracing.provider.shutdown()


def enabled() -> bool:
    """Whether spans are made."""
    return _tracing is not None


def trace_id(traceparent: str) -> str | None:
    """The trace id in a W3C traceparent; None if it is not one."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match.group(1) if match else None


class ActiveSpan:
    """A span that is being recorded; ended once, explicitly."""

    __slots__ = ("_span", "carrier")

    def __init__(self, span: "Span", carrier: dict[str, str]) -> None:
        self._span = span
        self.carrier = carrier

    @property
    def traceparent(self) -> str:
        """W3C context of this span, to hand to the next hop."""
        return self.carrier.get("traceparent", "")

    @property
    def tracestate(self) -> str:
        """Vendor part of the W3C context."""
        return self.carrier.get("tracestate", "")

    def set(self, **attributes: str | int | float | bool) -> None:
        """Sets attributes; underscores that are doubled become dots."""
        for key, value in attributes.items():
            self._span.set_attribute(key.replace("__", "."), value)

    def end(self, error: str | None = None, end_time_ns: int | None = None) -> None:
        """Ends the span; `error` marks it failed and says why."""
        if error is not None and _tracing is not None:
            self._span.set_status(_tracing.error_status)
            self._span.set_attribute("error.type", error)
        self._span.end(end_time_ns)


def span(
    name: str,
    kind: str,
    carrier: Mapping[str, str],
    *,
    attributes: Mapping[str, Any] | None = None,
    start_time_ns: int | None = None,
    links: Sequence[Mapping[str, str]] = (),
) -> ActiveSpan | None:
    """Starts a span whose parent is the W3C context in a carrier; None while tracing is off.

    Args:
        name: low in number: no ids in it.
        kind: INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER.
        carrier: `traceparent` and, if there is one, `tracestate`; empty for a root span.
        attributes: by their semantic-convention names.
        start_time_ns: nanoseconds since the epoch, if it began before now.
        links: carriers of other contexts that it has to do with and is no part of.
    """
    tracing = _tracing
    if tracing is None:
        return None
    context = tracing.propagator.extract(carrier)
    span_kind: SpanKind = tracing.kinds[kind]
    started = tracing.tracer.start_span(
        name,
        context,
        span_kind,
        attributes=attributes,
        links=[tracing.link(other) for other in links],
        start_time=start_time_ns,
    )
    out: dict[str, str] = {}
    tracing.propagator.inject(out, tracing.set_span_in_context(started))
    return ActiveSpan(started, out)
