"""The way of spans out of this process: a bounded queue, a thread, an OTLP exporter.

Nothing here makes whoever ends a span wait. What the collector does not take is dropped, counted,
and said once a minute. Imported only while tracing is on.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from socket import gethostname
from uuid import uuid4

import structlog
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from services.runtime import trace_words as words
from services.runtime.clock import Clock

log = structlog.get_logger()

SAY_EVERY_S = 60.0
FLUSH_S = 3.0
"""How long a process that ends waits for a collector to take what is left."""

_LIBRARY_LOGS = (
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class Ids(RandomIdGenerator):
    """Random ids, but for a root span whose ids are given.

    Attributes:
        given: trace id and span id of the next span.
    """

    given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        """The trace id of a root span."""
        return self.given[0] if self.given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The id of a span."""
        return self.given[1] if self.given else super().generate_span_id()


class SpanExport(SpanProcessor):
    """Hands ended spans to the exporter, in batches and from a thread of its own.

    Attributes:
        dropped_count: spans for which the queue had no room.
        undelivered_count: spans that the collector did not take.
    """

    def __init__(self, clock: Clock, exporter: SpanExporter) -> None:
        """Exports by OTEL_BSP_*: 2048 spans wait at most, 512 go together, at the latest after 5 s.

        Args:
            clock: when it was last said that spans were lost.
            exporter: what sends them; called by one thread.
        """
        self._clock = clock
        self._exporter = _Watched(exporter, self._sent)
        self._batches = BatchSpanProcessor(self._exporter)
        self._room = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or 2048)
        self._lock = threading.Lock()
        self._waiting_count = 0
        self._said_s = -SAY_EVERY_S
        self._said_count = 0
        self.dropped_count = 0
        self.undelivered_count = 0

    @property
    def lost_count(self) -> int:
        """Spans that never reached the collector."""
        return self.dropped_count + self.undelivered_count

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span that has ended, if it is sampled. Never waits, may drop the oldest."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            full = self._waiting_count >= self._room
            if full:
                self.dropped_count += 1
            else:
                self._waiting_count += 1
        self._batches.on_end(span)
        if full:
            self._say()

    def shutdown(self) -> None:
        """Exports what is left, for at most FLUSH_S."""
        # The library's own limit is 30 s, and what sends may be in the middle of a call of 10 s.
        ending = threading.Thread(target=self._batches.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        if ending.is_alive():
            log.warning("spans.not_flushed", waiting=self._waiting_count, after_s=FLUSH_S)
            # Ends the call that is under way, so that no thread outlives the interpreter.
            self._exporter.shutdown()
            ending.join(FLUSH_S)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Exports what waits now. Blocks."""
        return self._batches.force_flush(timeout_millis)

    def _sent(self, count: int, delivered: bool | None) -> None:
        """Takes note of a batch: that it is about to be sent (None), or what became of it."""
        if delivered is None:
            with self._lock:
                self._waiting_count = max(0, self._waiting_count - count)
        elif not delivered:
            self.undelivered_count += count
            self._say()

    def _say(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._said_s < SAY_EVERY_S:
            return
        lost = self.lost_count - self._said_count
        self._said_s, self._said_count = now_s, self.lost_count
        log.warning(
            "spans.lost",
            spans=lost,
            queue_full=self.dropped_count,
            not_delivered=self.undelivered_count,
            what_to_do="see whether the collector at OTEL_EXPORTER_OTLP_ENDPOINT answers, or "
            "sample less (OTEL_TRACES_SAMPLER)",
        )


class _Watched(SpanExporter):
    """An exporter that says what it does."""

    def __init__(self, inner: SpanExporter, sent: Callable[[int, bool | None], None]) -> None:
        self._inner = inner
        self._sent = sent

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._sent(len(spans), None)
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            self._sent(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


def exporter() -> SpanExporter:
    """What OTEL_EXPORTER_OTLP_* ask for: gRPC unless the protocol is `http/protobuf`.

    Raises:
        ValueError: if the protocol is another; it says which are legal.
    """
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "grpc"
    )
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as by_grpc

        made: SpanExporter = by_grpc.OTLPSpanExporter()
        return made
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http

        return by_http.OTLPSpanExporter()
    raise ValueError(
        f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; legal are grpc and http/protobuf. Set one "
        "of them, or OTEL_SDK_DISABLED=true to have no traces"
    )


def resource(service: str) -> Resource:
    """What all spans of this process say of it; OTEL_RESOURCE_ATTRIBUTES has the last word."""
    try:
        installed = version("forebay")
    except PackageNotFoundError:
        installed = "0+checkout"
    made = Resource.create(
        {
            words.SERVICE_NAME: f"forebay-{service.replace('_', '-')}",
            words.SERVICE_VERSION: installed,
            words.SERVICE_INSTANCE: str(uuid4()),
            words.HOST_NAME: gethostname(),
        }
    )
    return made.merge(OTELResourceDetector().detect())


def quieten_library() -> None:
    """Has the library's own words about lost spans said once a minute: ours say how many."""
    for name in _LIBRARY_LOGS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.addFilter(_OnceAMinute())


class _OnceAMinute(logging.Filter):
    """Lets one record a minute pass."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_s = -SAY_EVERY_S

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created - self._passed_s < SAY_EVERY_S:
            return False
        self._passed_s = record.created
        return True
