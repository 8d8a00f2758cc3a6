"""Pure: what a body must be before it is queued. Says what is wrong in the caller's terms."""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.inference_pb2 import InferRequest
from services.wire import names, protobuf_scan
from services.wire.limits import CLAIM_THRESHOLD_BYTES, MAX_BODY_BYTES, MAX_CLAIM_HEAD_BYTES
from services.wire.outcomes import OutcomeError

MAX_IDEMPOTENCY_KEY_LENGTH = 255

_SEQUENCE_PARAMETERS = frozenset({"sequence_id", "sequence_start", "sequence_end"})


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A body that may be queued.

    Attributes:
        deployment: id of the deployment it is for.
        idempotency_key: empty if there is none.
        parts: the body taken apart, if its raw tensors may stay out of the queue.
    """

    deployment: str
    idempotency_key: str
    parts: protobuf_scan.BodyParts | None


def check(body: bytes) -> CheckedRequest:
    """Checks a serialised InferRequest without decoding its raw tensors.

    Raises:
        OutcomeError: INVALID_ARGUMENT if it is too large, malformed, names no legal deployment or
            uses parameters that make no sense here.
    """
    _check_size(len(body))
    parts: protobuf_scan.BodyParts | None = None
    try:
        if len(body) >= CLAIM_THRESHOLD_BYTES:
            parts = protobuf_scan.split(body)
        request = InferRequest.FromString(body if parts is None else parts.head)
    except (DecodeError, protobuf_scan.MalformedError) as error:
        raise _invalid(f"the request is not a serialised InferRequest: {error}") from error
    check_fields(request)
    if parts is not None and (
        len(parts.head) > MAX_CLAIM_HEAD_BYTES
        or len(parts.raw_spans) != len(request.inputs)
        or not all(length for _, length in parts.raw_spans)
    ):
        parts = None
    return CheckedRequest(request.model_name, request.idempotency_key, parts)


def check_message(request: InferRequest, size_bytes: int) -> None:
    """Checks an InferRequest that came as part of another message, decoded already.

    Args:
        request: the request.
        size_bytes: its size, serialised.

    Raises:
        OutcomeError: INVALID_ARGUMENT, as `check` does.
    """
    _check_size(size_bytes)
    check_fields(request)


def check_fields(request: InferRequest) -> None:
    """Checks everything but the size and the tensors' bytes.

    Raises:
        OutcomeError: INVALID_ARGUMENT, as `check` does.
    """
    try:
        names.check_id(request.model_name, "deployment")
    except names.InvalidNameError as error:
        raise _invalid(f"model_name: {error}") from error
    if len(request.idempotency_key) > MAX_IDEMPOTENCY_KEY_LENGTH:
        raise _invalid(
            f"idempotency_key has {len(request.idempotency_key)} characters; "
            f"at most {MAX_IDEMPOTENCY_KEY_LENGTH} are allowed"
        )
    _check_parameters("the request", request.parameters)
    for tensor in request.inputs:
        if tensor.parameters:
            _check_parameters(f"input {names.quoted(tensor.name)}", tensor.parameters)
    for output in request.outputs:
        if output.parameters:
            _check_parameters(f"output {names.quoted(output.name)}", output.parameters)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise _invalid(
            f"the request is {size_bytes} bytes; the limit is {MAX_BODY_BYTES} bytes (8 MiB). "
            "Send fewer elements in a request"
        )


def _check_parameters(where: str, parameters: Iterable[str]) -> None:
    for key in parameters:
        if key.startswith("shared_memory_"):
            raise _invalid(
                f"{where} has the parameter {names.quoted(key)}: shared memory does not reach "
                "across the mesh; send the tensor's bytes in raw_input_contents"
            )
        if key.startswith("triton_"):
            raise _invalid(
                f"{where} has the parameter {names.quoted(key)}: names that begin with triton_ "
                "are reserved; choose another name"
            )
        if key in _SEQUENCE_PARAMETERS:
            raise _invalid(
                f"{where} has the parameter {names.quoted(key)}: requests of one sequence would "
                "reach different replicas; send what the model needs in one request"
            )


def _invalid(message: str) -> OutcomeError:
    return OutcomeError(OUTCOME_INVALID_ARGUMENT, message)
