"""The two transports round the one core: raw bytes in, raw bytes out.

Handlers without (de)serialisers get and give bytes, so that no tensor is decoded here.
"""

import asyncio
from typing import NoReturn

import grpc.aio
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from forebay.v1.envelope_pb2 import OUTCOME_INTERNAL, OUTCOME_INVALID_ARGUMENT
from forebay.v1.inference_pb2 import InferResponse
from services.router.inference import Caller, InferenceCore
from services.router.refusals import status_of
from services.router.spans import CANCELLED, end_server_span, server_span
from services.runtime import model_messages, telemetry
from services.wire.outcomes import BY_REPLICA_KEY, LABELS, OutcomeError

log = structlog.get_logger()

ROUTER_SERVICE = "forebay.v1.RouterService"

MAX_MESSAGE_BYTES = 2000
MAX_ENCODED_MESSAGE_BYTES = 4000
"""A message travels twice, as grpc-message (3 bytes for each that is not printable ASCII) and in
grpc-status-details-bin (4 for 3). Clients refuse trailers over 8 KiB with an error of their own."""

# Fields that are not repeated may follow a serialised message: parsers take the last value.
_FINAL: bytes = InferResponse(index=0, final=True).SerializeToString()


class InferServicer:
    """`Infer` and `ModelInfer`."""

    def __init__(self, core: InferenceCore) -> None:
        """Serves with a core."""
        self._core = core

    async def infer(self, context: grpc.aio.ServicerContext) -> bytes:
        """`/forebay.v1.RouterService/Infer`."""
        return await self._call(context, ROUTER_SERVICE + "/Infer") + _FINAL

    async def model_infer(self, context: grpc.aio.ServicerContext) -> bytes:
        """`/inference.GRPCInferenceService/ModelInfer`."""
        return await self._call(context, "inference.GRPCInferenceService/ModelInfer")

    async def _call(self, context: grpc.aio.ServicerContext, method: str) -> bytes:
        caller = caller_of(context)
        span = server_span(method, caller) if telemetry.enabled() else None
        failed: OutcomeError | str | None = CANCELLED
        try:
            response = await self._core.infer(await _read(context), caller)
            failed = None
            context.set_trailing_metadata(
                (
                    ("forebay-request-id", caller.request_id),
                    ("forebay-trace-id", caller.trace_id),
                )
            )
            return response
        except OutcomeError as error:
            failed = error
            await abort(context, error, caller)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failed = "internal"
            log.exception("infer.failed", trace_id=caller.trace_id, request_id=caller.request_id)
            raise await abort_internal(context, caller) from error
        finally:
            if span is not None:
                end_server_span(span, caller, failed)


async def _read(context: grpc.aio.ServicerContext) -> bytes:
    body = await context.read()
    if body is grpc.aio.EOF:
        raise OutcomeError(OUTCOME_INVALID_ARGUMENT, "the call ended without a request")
    received: bytes = body
    return received


def caller_of(context: grpc.aio.ServicerContext) -> Caller:
    """What a call's metadata and deadline say."""
    traceparent = tracestate = ""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            traceparent = value
        elif key == "tracestate":
            tracestate = value
    return Caller(context.time_remaining(), traceparent, tracestate)


def shortened(message: str) -> str:
    """The message, or as much of its beginning as clients take, and how long it was."""
    size = encoded = 0
    for index, character in enumerate(message):
        own = len(character.encode(errors="replace"))
        size += own
        encoded += own if " " <= character <= "~" and character != "%" else 3 * own
        if size > MAX_MESSAGE_BYTES or encoded > MAX_ENCODED_MESSAGE_BYTES:
            total = len(message.encode(errors="replace"))
            return f"{message[:index]}… (cut here; the whole message has {total} bytes)"
    return message


async def abort(
    context: grpc.aio.ServicerContext,
    error: OutcomeError,
    caller: Caller,
    event: str = "infer.refused",
) -> NoReturn:
    """Ends a call with an error: status, sentence, trace id, and when to try again.

    Args:
        context: of the call.
        error: why.
        caller: whose ids are known.
        event: what the log calls it.
    """
    sentence = shortened(error.message)
    status = status_of(error)
    log.info(
        event,
        outcome=LABELS[error.outcome],
        message=model_messages.for_record(sentence) if error.by_replica else sentence,
        request_id=caller.request_id,
        trace_id=caller.trace_id,
    )
    message = f"{sentence} [trace {caller.trace_id}]"
    trailers: list[tuple[str, str | bytes]] = [
        ("forebay-request-id", caller.request_id),
        ("forebay-trace-id", caller.trace_id),
        ("grpc-status-details-bin", _details(error, status, message, caller)),
    ]
    if error.by_replica:
        trailers.append((BY_REPLICA_KEY, "true"))
    if error.retry_after_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1000))))
    await context.abort(status, message, tuple(trailers))
    raise AssertionError("abort raises")


async def abort_internal(
    context: grpc.aio.ServicerContext, caller: Caller, event: str = "infer.refused"
) -> BaseException:
    """Answers a defect of ours; the stack trace is in the log and nowhere else."""
    sentence = "the router failed on this request; its log has the reason"
    try:
        await abort(context, OutcomeError(OUTCOME_INTERNAL, sentence), caller, event)
    except grpc.aio.AbortError as error:
        aborted: BaseException = error
        return aborted
    raise AssertionError("abort raises")


def _details(error: OutcomeError, code: grpc.StatusCode, message: str, caller: Caller) -> bytes:
    status = Status(code=code.value[0], message=message)
    info = ErrorInfo(
        reason=code.name,
        domain="forebay",
        metadata={"request_id": caller.request_id, "trace_id": caller.trace_id},
    )
    details: list[ErrorInfo | RetryInfo] = [info]
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        details.append(RetryInfo(retry_delay=delay))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    serialized: bytes = status.SerializeToString()
    return serialized
