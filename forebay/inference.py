"""One inference as messages: what both clients share, without any input or output."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from numpy.typing import ArrayLike, NDArray

from forebay import tensors
from forebay.errors import (
    REQUEST_ID_KEY,
    TRACE_ID_KEY,
    ForebayError,
    InvalidRequestError,
    InvalidResponseError,
    ModelError,
    from_rpc_error,
)
from forebay.v1.inference_pb2 import InferRequest, InferResponse
from services.runtime import telemetry
from services.runtime import trace_words as words
from services.runtime.model_messages import for_record
from services.wire.channels import CHANNEL_OPTIONS
from services.wire.outcomes import OutcomeError
from services.wire.tenants import TENANT_KEY, tenant_of

__all__ = ["CHANNEL_OPTIONS", "Call", "InferResult", "build_request", "read_response"]

INFER = "forebay.v1.RouterService/Infer"


@dataclass(frozen=True, slots=True, eq=False)
class InferResult(Mapping[str, NDArray[Any]]):
    """The outputs of one inference: a read-only mapping of output name to array.

    Attributes:
        outputs: arrays by output name. Fixed-size types are read-only views; `.copy()` makes a
            writable array. BYTES outputs are object arrays of bytes.
        model_version: version of the model that answered.
        request_id: identifies the request in logs and traces.
        trace_id: W3C trace id of the request; None if it has none.
        index: position of this answer among the request's answers, from 0.
        final: whether this is the request's last answer.
    """

    outputs: Mapping[str, NDArray[Any]] = field(repr=False)
    model_version: str
    request_id: str | None
    trace_id: str | None
    index: int
    final: bool

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def build_request(
    deployment: str,
    inputs: Mapping[str, ArrayLike],
    outputs: Sequence[str] | None,
    idempotency_key: str | None,
    model_version: str,
) -> InferRequest:
    """The request for one inference.

    Raises:
        InvalidRequestError: if an input is not an array that can be sent.
    """
    request = InferRequest(
        model_name=deployment,
        model_version=model_version,
        idempotency_key=idempotency_key or "",
    )
    for name, value in inputs.items():
        try:
            datatype, shape, raw = tensors.encode(value)
        except ValueError as error:
            raise InvalidRequestError(f"input {name!r}: {error}") from error
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    for name in outputs or ():
        request.outputs.add(name=name)
    return request


def read_response(response: InferResponse, metadata: Mapping[str, str]) -> InferResult:
    """The result in a response and its call's trailing metadata.

    Raises:
        InvalidResponseError: if a tensor's bytes don't fit its shape and type.
    """
    request_id, trace_id = metadata.get(REQUEST_ID_KEY), metadata.get(TRACE_ID_KEY)
    raws = response.raw_output_contents
    arrays: dict[str, NDArray[Any]] = {}
    for position, output in enumerate(response.outputs):
        try:
            if output.HasField("contents") or position >= len(raws):
                array = tensors.decode_contents(output.datatype, output.shape, output.contents)
            else:
                array = tensors.decode(output.datatype, output.shape, raws[position])
        except ValueError as error:
            raise InvalidResponseError(
                f"output {output.name!r}: {error}", request_id=request_id, trace_id=trace_id
            ) from error
        arrays[output.name] = array
    return InferResult(
        arrays, response.model_version, request_id, trace_id, response.index, response.final
    )


class Call:
    """One call's span and metadata, from just before it is made until it has ended."""

    def __init__(
        self, deployment: str, address: str, tenant: str | None, method: str = INFER
    ) -> None:
        """Starts the call's span, a child of the caller's active OpenTelemetry span if any.

        Args:
            deployment: what the call is about.
            address: where it goes.
            tenant: whom it speaks for; None leaves it to the router.
            method: full name of the gRPC method.
        """
        self._address = address
        carrier = active_context()
        host, _, port = address.rpartition(":")
        self._span = telemetry.span(
            method,
            "CLIENT",
            carrier,
            attributes={
                words.RPC_SYSTEM: words.GRPC,
                words.RPC_METHOD: method,
                words.SERVER_ADDRESS: host or address,
                words.DEPLOYMENT: deployment,
            },
        )
        if self._span is not None and port.isdecimal():
            self._span.set({words.SERVER_PORT: int(port)})
        if self._span is not None:
            carrier = self._span.carrier
        self._trace_id = telemetry.trace_id(carrier.get("traceparent", ""))
        self.metadata = (*carrier.items(), *tenant_metadata(tenant))

    def succeeded(self, response: InferResponse, trailers: Any) -> InferResult:
        """Ends the call with its response."""
        metadata = dict(trailers or ())
        if self._trace_id is not None:
            metadata.setdefault(TRACE_ID_KEY, self._trace_id)
        try:
            result = read_response(response, metadata)
        except InvalidResponseError as error:
            self.end("invalid_response", description=str(error), status="OK")
            raise
        self.end(None, {words.REQUEST: metadata.get(REQUEST_ID_KEY, "")})
        return result

    def failed(self, error: grpc.RpcError) -> ForebayError:
        """Ends the call with what the stub raised; returns what the caller shall get."""
        typed = from_rpc_error(error, self._address, self._trace_id)
        self.failed_with(typed, {words.REQUEST: typed.request_id or ""})
        return typed

    def failed_with(
        self, error: ForebayError, attributes: Mapping[str, telemetry.Value] | None = None
    ) -> None:
        """Ends the call's span with what its caller gets."""
        status = error.status.name if error.status else "UNKNOWN"
        # Models may fail with other statuses than INTERNAL, too.
        its_words = error.by_replica or isinstance(error, ModelError)
        why = for_record(str(error)) if its_words else str(error)
        self.end(status, attributes, why, status)

    def end(
        self,
        error: str | None,
        attributes: Mapping[str, telemetry.Value] | None = None,
        description: str = "",
        status: str | None = None,
    ) -> None:
        """Ends the call's span.

        Args:
            error: what kind of error, if it failed.
            attributes: further ones; those that are empty are left out.
            description: of the error, for a person.
            status: the gRPC status it ended with; by itself OK if there is no error.
        """
        if self._span is None:
            return
        known = {key: value for key, value in (attributes or {}).items() if value != ""}
        status = status or ("OK" if error is None else None)
        if status is not None:
            known[words.RPC_STATUS] = status
        self._span.set(known)
        self._span.end(error, description)
        self._span = None


def tenant_metadata(tenant: str | None) -> tuple[tuple[str, str], ...]:
    """Call metadata that names the tenant a call speaks for."""
    return () if tenant is None else ((TENANT_KEY, tenant),)


def check_tenant(tenant: str | None) -> str | None:
    """Returns `tenant` if there may be one of that name.

    Raises:
        InvalidRequestError: if there may not.
    """
    try:
        return None if tenant is None else tenant_of([(TENANT_KEY, tenant)])
    except OutcomeError as error:
        raise InvalidRequestError(error.message) from error


def active_context() -> dict[str, str]:
    """W3C context of the caller's active span; empty if there is none."""
    # Whoever has an active span has imported this; importing it for everyone costs 20 ms.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier
