"""The router's spans: a call that came in, and a message that goes into a queue."""

from services.router.inference import Caller
from services.router.refusals import status_of
from services.runtime import model_messages, telemetry
from services.runtime import trace_words as words
from services.wire.outcomes import LABELS, OutcomeError

CANCELLED = "cancelled"
_STATUS = {CANCELLED: "CANCELLED", "internal": "INTERNAL", "ok": "OK"}


def server_span(method: str, caller: Caller) -> telemetry.ActiveSpan | None:
    """The span of a call, of which the caller's further spans are children; None if off.

    Args:
        method: full name of the gRPC method.
        caller: whose context becomes that of the span.
    """
    span = telemetry.span(
        method,
        "SERVER",
        {"traceparent": caller.traceparent, "tracestate": caller.tracestate},
        attributes={words.RPC_SYSTEM: words.GRPC, words.RPC_METHOD: method},
    )
    if span is not None:
        carrier = span.carrier
        caller.traceparent = carrier["traceparent"]
        caller.tracestate = carrier.get("tracestate", "")
    return span


def end_server_span(
    span: telemetry.ActiveSpan, caller: Caller, failed: OutcomeError | str | None
) -> None:
    """Ends the span of a call, marked failed if that was the mesh's fault and not the caller's.

    Args:
        span: of the call.
        caller: whose ids it gets.
        failed: why; the label of an outcome if there is no more to say; None if it succeeded.
    """
    if not span.sampled:
        span.end()
        return
    if isinstance(failed, OutcomeError):
        outcome, status, why = LABELS[failed.outcome], status_of(failed).name, failed.message
        if failed.by_replica:
            why = model_messages.for_record(why)
    else:
        outcome = failed or "ok"
        status, why = _STATUS[outcome], ""
    span.set({words.RPC_STATUS: status, words.OUTCOME: outcome})
    if caller.request_id:
        span.set({words.REQUEST: caller.request_id})
    if caller.deployment:
        span.set({words.DEPLOYMENT: caller.deployment})
    span.end(status if status in words.SERVER_ERRORS else None, why)
