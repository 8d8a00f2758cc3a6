"""Arguments as inputs of the deployment, its outputs as results."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.errors import InvalidRequestError, InvalidResponseError
from forebay.functions.errors import function_error
from forebay.functions.runner import codec
from forebay.functions.runner.failures import Failure
from forebay.inference import InferResult

ITEM = "ITEM"
RESULT = "RESULT"


def inputs_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The inputs that one call is sent as.

    Raises:
        InvalidRequestError: if an argument cannot be sent; the text says what can.
    """
    try:
        item = codec.encode([args, kwargs])
    except codec.CodecError as error:
        raise InvalidRequestError(f"an argument: {error}") from None
    array = np.empty((1, 1), object)
    array[0, 0] = item
    return {ITEM: array}


def value_of(result: InferResult) -> Any:
    """What the function returned for the item that a result is of.

    Raises:
        FunctionError: if it raised.
        InvalidResponseError: if the result is not of a function.
    """
    values = result.outputs.get(RESULT)
    if values is None or values.size != 1:
        raise InvalidResponseError(
            f"a result with the outputs {', '.join(result.outputs)} is not of a function",
            request_id=result.request_id,
            trace_id=result.trace_id,
        )
    try:
        envelope = codec.decode(values.ravel()[0])
    except codec.CodecError as error:
        raise InvalidResponseError(
            str(error), request_id=result.request_id, trace_id=result.trace_id
        ) from None
    if isinstance(envelope, dict):
        if "ok" in envelope:
            return envelope["ok"]
        if isinstance(envelope.get("error"), Mapping):
            raise function_error(_failure(envelope["error"]), result)
    raise InvalidResponseError(
        "the answer is no envelope of a function", request_id=result.request_id
    )


def _failure(error: Mapping[str, Any]) -> Failure:
    return Failure(
        str(error.get("type", "Exception")),
        str(error.get("message", "")),
        str(error.get("traceback", "")),
        error.get("permanent") is True,
    )
