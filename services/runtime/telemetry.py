"""Traces: W3C context always travels; spans are made only where an exporter is configured.

The standard variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) turns it on,
OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG choose what is kept, OTEL_SDK_DISABLED=true turns it
off. Off, the SDK is not even imported, and `span()` is one comparison.
"""

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.runtime import trace_words as words

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, SpanKind, Status

    from services.runtime.span_export import Ids as _Ids
    from services.runtime.span_export import SpanExport

CLIENT = "client"

Value = str | int | float | bool

MAX_DESCRIPTION_CHARACTERS = 300
"""Of an error in a span; the whole message is the caller's, and in the log."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

_TRACEPARENT_LENGTH = 55

_tracing: "_Tracing | None" = None


@dataclass(frozen=True, slots=True)
class LinkTo:
    """Another span that one has to do with and is no part of.

    Attributes:
        carrier: its W3C context.
        attributes: what it has to do with it.
    """

    carrier: Mapping[str, str]
    attributes: Mapping[str, Value] = field(default_factory=dict)


class _Tracing:
    """The API, with what makes spans: a provider of our own, or the one of a user's program."""

    def __init__(
        self, provider: "TracerProvider", ids: "_Ids", export: "SpanExport | None"
    ) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace.sampling import ParentBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.ids = ids
        self.export = export
        self.tracer = provider.get_tracer("forebay")
        self.propagator = TraceContextTextMapPropagator()
        self.kinds = {kind.name: kind for kind in trace.SpanKind}
        sampler = getattr(provider, "sampler", None)
        self.follows_parent = isinstance(sampler, ParentBased)
        self._provider = provider
        self._trace = trace

    @classmethod
    def of_our_own(cls, service: str) -> "_Tracing":
        """Spans go where OTEL_EXPORTER_OTLP_* say."""
        from opentelemetry.sdk.trace import TracerProvider

        from services.runtime import span_export
        from services.runtime.clock import SystemClock

        if service != CLIENT:
            # In a service the logs are ours; in a user's program they are the user's.
            span_export.quieten_library()
        ids = span_export.Ids()
        export = span_export.SpanExport(SystemClock(), span_export.exporter())
        provider = TracerProvider(
            resource=span_export.resource(service),
            id_generator=ids,
            # A service flushes for a time that is bounded; a user's program when it ends.
            shutdown_on_exit=service == CLIENT,
        )
        provider.add_span_processor(export)
        return cls(provider, ids, export)

    def failed(self, description: str) -> "Status":
        """The status of a span that failed."""
        return self._trace.Status(self._trace.StatusCode.ERROR, description or None)

    def link(self, other: LinkTo) -> "Link":
        """A link to the W3C context in a carrier."""
        there = self._trace.get_current_span(self.propagator.extract(other.carrier))
        return self._trace.Link(there.get_span_context(), dict(other.attributes))

    def shutdown(self) -> None:
        """Exports what is left, if the exporter is ours."""
        if self.export is not None:
            self._provider.shutdown()


def configure(service: str) -> None:
    """Turns tracing on if the environment names an exporter.

    Args:
        service: such as `router`; CLIENT in a user's program, where a tracer provider that the
            program has set for itself is used instead.

    Raises:
        ValueError: if the environment names a protocol that there is none for.
    """
    global _tracing
    _tracing = None
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    users = _users_provider() if service == CLIENT else None
    if users is not None:
        from services.runtime import span_export

        _tracing = _Tracing(users, span_export.Ids(), None)
    elif os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    ):
        _tracing = _Tracing.of_our_own(service)


def _users_provider() -> "TracerProvider | None":
    """What a user's program has set with `opentelemetry.trace.set_tracer_provider`."""
    # Whoever has set one has imported this; importing it for everyone costs 20 ms.
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def shutdown() -> None:
    """Exports what is left, for a few seconds at most."""
    if _tracing is not None:
        _tracing.shutdown()


def enabled() -> bool:
    """Whether spans are made."""
    return _tracing is not None


def records(traceparent: str) -> bool:
    """Whether a child of this W3C context may be recorded; a quick look, before it is described.

    To describe a span that is then not recorded costs 10 µs, a third of one that is.
    """
    if _tracing is None:
        return False
    # The last digit of the flags has the bit that says sampled.
    unsampled = len(traceparent) == _TRACEPARENT_LENGTH and traceparent[-1] in "02468ace"
    return not (unsampled and _tracing.follows_parent)


def export() -> "SpanExport | None":
    """The way of spans out of this process; None while tracing is off."""
    return _tracing.export if _tracing is not None else None


def now_ns() -> int:
    """Nanoseconds since the epoch, which is what spans are dated by."""
    return time.time_ns()


def trace_id(traceparent: str) -> str | None:
    """The trace id in a W3C traceparent; None if it is not one."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match.group(1) if match else None


def traceparent_of(trace: int, span_id: int, sampled: bool) -> str:
    """The W3C traceparent of a span with these ids."""
    return f"00-{trace:032x}-{span_id:016x}-{int(sampled):02x}"


class ActiveSpan:
    """A span that is being recorded; ended once, explicitly."""

    __slots__ = ("_span",)

    def __init__(self, span: "Span") -> None:
        self._span = span

    @property
    def carrier(self) -> dict[str, str]:
        """W3C context of this span as a carrier."""
        context = self._span.get_span_context()
        made = {
            "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-"
            f"{context.trace_flags:02x}"
        }
        if context.trace_state:
            made["tracestate"] = context.trace_state.to_header()
        return made

    @property
    def traceparent(self) -> str:
        """W3C context of this span, to hand to the next hop."""
        return self.carrier["traceparent"]

    @property
    def trace_id(self) -> str:
        """Its trace: 32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def tracestate(self) -> str:
        """Vendor part of the W3C context."""
        return self.carrier.get("tracestate", "")

    @property
    def sampled(self) -> bool:
        """Whether it is recorded; if not, its context travels all the same."""
        return bool(self._span.get_span_context().trace_flags.sampled)

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Sets attributes, by the names in `trace_words`."""
        self._span.set_attributes(attributes)

    def fail(self, error: str, description: str = "") -> None:
        """Marks it failed.

        Args:
            error: what kind of error; low in number.
            description: what a person reads; cut at MAX_DESCRIPTION_CHARACTERS.
        """
        if _tracing is not None:
            self._span.set_status(_tracing.failed(description[:MAX_DESCRIPTION_CHARACTERS]))
        self._span.set_attribute(words.ERROR_TYPE, error)

    def end(
        self, error: str | None = None, description: str = "", end_time_ns: int | None = None
    ) -> None:
        """Ends the span; `error` marks it failed, as `fail`."""
        if error is not None:
            self.fail(error, description)
        self._span.end(end_time_ns)


def span(
    name: str,
    kind: str,
    carrier: Mapping[str, str],
    *,
    attributes: Mapping[str, Value] | None = None,
    start_time_ns: int | None = None,
    links: Sequence[LinkTo] = (),
    ids: tuple[int, int] | None = None,
) -> ActiveSpan | None:
    """Starts a span whose parent is the W3C context in a carrier; None while tracing is off.

    Args:
        name: low in number: no ids in it.
        kind: INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER.
        carrier: `traceparent` and, if there is one, `tracestate`; empty for a root span.
        attributes: by the names in `trace_words`.
        start_time_ns: nanoseconds since the epoch, if it began before now.
        links: other spans that it has to do with and is no part of.
        ids: trace and span id of a root span, where others must be able to know them.
    """
    tracing = _tracing
    if tracing is None:
        return None
    context = tracing.propagator.extract(carrier)
    span_kind: SpanKind = tracing.kinds[kind]
    tracing.ids.given = ids
    try:
        started = tracing.tracer.start_span(
            name,
            context,
            span_kind,
            attributes=attributes,
            links=[tracing.link(other) for other in links] if links else None,
            start_time=start_time_ns,
        )
    finally:
        tracing.ids.given = None
    return ActiveSpan(started)
