"""Pure: how a node's spans are called, low in number, and how Triton is told to make its own.

Triton calls one span by the name of its model, so that a mesh of a hundred deployments would have
a hundred operations more in Jaeger's list: here the model is an attribute.
"""

from collections.abc import Mapping
from typing import Final

from services.runtime import trace_words as words

QUEUE_WAIT: Final = "queue wait"
ATTEMPT: Final = "attempt"
TRITON_CALL: Final = "triton ModelInfer"
REPLY: Final = "reply"
TASK_ATTEMPT: Final = "task attempt"
TASK_SETTLED: Final = "settle task"
COLD_START: Final = "cold start"

MODEL_FETCH: Final = "model fetch"
ENVIRONMENT_BUILD: Final = "environment build"
IMAGE_PULL: Final = "image pull"
TRITON_LOAD: Final = "triton load"
CANARY: Final = "canary"
START_STEPS: Final = (MODEL_FETCH, ENVIRONMENT_BUILD, IMAGE_PULL, TRITON_LOAD, CANARY)

TRITON_SERVICE: Final = "triton"
TRITON_REQUEST: Final = "triton InferRequest"
TRITON_MODEL: Final = "triton model"
TRITON_COMPUTE: Final = "triton compute"
TRITON_OTHER: Final = "triton other"

MODEL_INFER: Final = "inference.GRPCInferenceService/ModelInfer"

_KEPT = frozenset({words.TRITON_MODEL, words.TRITON_MODEL_VERSION})

# Those of waiting for the next call are not among them: they are from long before the span.
_EVENTS = frozenset(
    {
        "REQUEST_START",
        "QUEUE_START",
        "COMPUTE_START",
        "COMPUTE_INPUT_END",
        "COMPUTE_OUTPUT_START",
        "COMPUTE_END",
        "INFER_RESPONSE_COMPLETE",
        "REQUEST_END",
        "GRPC_SEND_START",
        "GRPC_SEND_END",
        "CACHE_HIT_START",
        "CACHE_HIT_END",
    }
)

# How what a replica says begins; what a tool says of its progress begins nothing.
_STEPS = (
    ("fetching the model", MODEL_FETCH),
    ("making sure of the image", IMAGE_PULL),
    ("building the model's Python environment", ENVIRONMENT_BUILD),
    ("waiting for the model's Python environment", ENVIRONMENT_BUILD),
    ("Triton is loading the model", TRITON_LOAD),
    ("canary inference", CANARY),
)


def start_step(message: str) -> str | None:
    """The step of a start that begins with what a replica says then; None: the same goes on."""
    return next((step for words, step in _STEPS if message.startswith(words)), None)


def triton_span(name: str, attributes: Mapping[str, object]) -> str:
    """What one of Triton's spans is called here.

    Args:
        name: as Triton calls it.
        attributes: of the span; the one of a model has the model's name.
    """
    if name == "InferRequest":
        return TRITON_REQUEST
    if words.TRITON_MODEL in attributes:
        return TRITON_MODEL
    return TRITON_COMPUTE if name == "compute" else TRITON_OTHER


def kept_attribute(key: str) -> bool:
    """Whether an attribute of Triton's goes on; the request's id is the caller's own word."""
    return key in _KEPT


def kept_event(name: str) -> bool:
    """Whether an event of Triton's goes on."""
    return name in _EVENTS


def triton_flags(url: str, replica_id: str) -> list[str]:
    """What has a Triton send its spans, of calls that come with a context and of no others.

    Args:
        url: of a relay, such as http://127.0.0.1:4318/v1/traces.
        replica_id: says whose spans they are.
    """
    return [
        "--trace-config=mode=opentelemetry",
        # One in so many calls that come without a context: none.
        "--trace-config=rate=0",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=opentelemetry,url={url}",
        "--trace-config=opentelemetry,bsp_schedule_delay=1000",
        f"--trace-config=opentelemetry,resource={words.SERVICE_NAME}={TRITON_SERVICE}",
        f"--trace-config=opentelemetry,resource={words.REPLICA}={replica_id}",
    ]
