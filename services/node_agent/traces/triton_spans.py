"""Makes of what Triton sends what the exporter sends on: named, and of the replica it is of."""

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from services.node_agent.traces import trace_names as names
from services.node_agent.traces.recent_calls import RecentCalls
from services.runtime import trace_words as words

MAX_EVENTS = 16
MAX_VALUE_CHARACTERS = 200
MAX_INSTANT_NS = 1 << 63

_SCOPE = InstrumentationScope("triton-server")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_TRACE_DIGITS, _SPAN_DIGITS = 32, 16


class SpanMaker:
    """Spans of the Tritons of one node."""

    def __init__(self, node: str, calls: RecentCalls) -> None:
        """For a node, of whose calls some were traced."""
        self._node = node
        self._calls = calls

    def of(self, request: Mapping[str, Any]) -> tuple[list[ReadableSpan], int]:
        """The spans of an ExportTraceServiceRequest, as its JSON is, and how many are not ours.

        Raises:
            ValueError: if it is malformed; KeyError, TypeError and AttributeError likewise.
        """
        read_id = _of_base64 if request.get("base64") else _of_hex
        found: list[ReadableSpan] = []
        dropped = 0
        for group in request.get("resourceSpans", ()):
            said = _attributes(group.get("resource", {}).get("attributes", ()))
            replica = str(said.get(words.REPLICA, ""))
            spans = [span for scope in group.get("scopeSpans", ()) for span in scope["spans"]]
            resources: dict[str, Resource] = {}
            for span in spans:
                trace_id = read_id(span["traceId"], _TRACE_DIGITS)
                deployment = self._calls.take(trace_id, replica)
                if deployment is None:
                    dropped += 1
                    continue
                if deployment not in resources:
                    resources[deployment] = self._resource(replica, deployment)
                found.append(_span(span, trace_id, read_id, resources[deployment]))
        return found, dropped

    def _resource(self, replica: str, deployment: str) -> Resource:
        return Resource(
            {
                words.SERVICE_NAME: names.TRITON_SERVICE,
                words.SERVICE_INSTANCE: replica,
                words.REPLICA: replica,
                words.NODE: self._node,
                words.DEPLOYMENT: deployment,
            }
        )


_ReadId = Callable[[str, int], str]


def _span(
    span: Mapping[str, Any], trace_id: str, read_id: _ReadId, resource: Resource
) -> ReadableSpan:
    said = _attributes(span.get("attributes", ()))
    name = names.triton_span(str(span["name"]), said)
    parent = span.get("parentSpanId")
    events = [
        Event(event["name"], timestamp=_instant(event["timeUnixNano"]))
        for event in list(span.get("events", ()))[:MAX_EVENTS]
        if names.kept_event(event["name"])
    ]
    return ReadableSpan(
        name=name,
        context=_context(trace_id, read_id(span["spanId"], _SPAN_DIGITS)),
        parent=_context(trace_id, read_id(parent, _SPAN_DIGITS)) if parent else None,
        resource=resource,
        attributes={key: value for key, value in said.items() if names.kept_attribute(key)},
        events=events,
        # Triton calls all of them servers; only the first is called from elsewhere.
        kind=SpanKind.SERVER if name == names.TRITON_REQUEST else SpanKind.INTERNAL,
        instrumentation_scope=_SCOPE,
        start_time=_instant(span["startTimeUnixNano"]),
        end_time=_instant(span["endTimeUnixNano"]),
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)


def _attributes(found: Iterable[Mapping[str, Any]]) -> dict[str, str | int]:
    made: dict[str, str | int] = {}
    for attribute in found:
        value = attribute["value"]
        if "stringValue" in value:
            text = str(value["stringValue"])[:MAX_VALUE_CHARACTERS]
            # Half of a surrogate pair, which JSON can hold, would spoil the whole batch.
            made[str(attribute["key"])] = text.encode(errors="replace").decode()
        elif "intValue" in value:
            made[str(attribute["key"])] = _bounded(int(value["intValue"]))
    return made


def _instant(value: str | int) -> int:
    return _bounded(int(value))


def _bounded(value: int) -> int:
    if not 0 <= value < MAX_INSTANT_NS:
        raise ValueError("a number is from 0 to 2^63")
    return value


def _of_hex(text: str, digits: int) -> str:
    if len(text) != digits or int(text, 16) == 0:
        raise ValueError("an id is hexadecimal and not 0")
    return text.lower()


def _of_base64(text: str, digits: int) -> str:
    return _of_hex(base64.b64decode(text, validate=True).hex(), digits)
