"""Forebay: a self-hosted gRPC mesh that turns machines with GPUs into serverless inference.

    import forebay

    with forebay.Client() as client:
        result = client.infer("file-type", {"CONTENT": numpy.array([data], dtype=object)})
        result["LABEL"]

What is exported here is imported on first use: `import forebay` itself costs nothing.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forebay.aio import AsyncClient
    from forebay.client import Client
    from forebay.errors import (
        CancelledError,
        DeadlineExceededError,
        DeploymentNotFoundError,
        ForebayError,
        IdempotencyConflictError,
        InvalidRequestError,
        InvalidResponseError,
        ModelError,
        PoisonRequestError,
        QueueFullError,
        TaskCancelledError,
        TaskError,
        TaskExpiredError,
        TaskFailedError,
        TaskNotFoundError,
        TaskStateError,
        UnavailableError,
    )
    from forebay.functions.decorator import function
    from forebay.functions.errors import (
        DeploymentFailedError,
        FunctionDefinitionError,
        FunctionError,
        PermanentError,
    )
    from forebay.functions.scaling import OngoingRequests, QueueDepth, QueueSize, RequestLatency
    from forebay.inference import InferResult
    from forebay.schedules import ScheduleError, schedule
    from forebay.tasks import AsyncTaskHandle, TaskHandle, TaskStatus
    from forebay.volumes import volume

__all__ = [
    "AsyncClient",
    "AsyncTaskHandle",
    "CancelledError",
    "Client",
    "DeadlineExceededError",
    "DeploymentFailedError",
    "DeploymentNotFoundError",
    "ForebayError",
    "FunctionDefinitionError",
    "FunctionError",
    "IdempotencyConflictError",
    "InferResult",
    "InvalidRequestError",
    "InvalidResponseError",
    "ModelError",
    "OngoingRequests",
    "PermanentError",
    "PoisonRequestError",
    "QueueDepth",
    "QueueFullError",
    "QueueSize",
    "RequestLatency",
    "ScheduleError",
    "TaskCancelledError",
    "TaskError",
    "TaskExpiredError",
    "TaskFailedError",
    "TaskHandle",
    "TaskNotFoundError",
    "TaskStateError",
    "TaskStatus",
    "UnavailableError",
    "function",
    "schedule",
    "volume",
]

_MODULES = {"AsyncClient": "forebay.aio", "Client": "forebay.client"}
_MODULES["InferResult"] = "forebay.inference"
_MODULES |= dict.fromkeys(("AsyncTaskHandle", "TaskHandle", "TaskStatus"), "forebay.tasks")
_MODULES |= dict.fromkeys(("ScheduleError", "schedule"), "forebay.schedules")
_MODULES["volume"] = "forebay.volumes"
_MODULES["function"] = "forebay.functions.decorator"
for _name in (
    "DeploymentFailedError",
    "FunctionDefinitionError",
    "FunctionError",
    "PermanentError",
):
    _MODULES[_name] = "forebay.functions.errors"
for _name in ("OngoingRequests", "QueueDepth", "QueueSize", "RequestLatency"):
    _MODULES[_name] = "forebay.functions.scaling"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return version("forebay")
        except PackageNotFoundError:
            return "0+checkout"
    if name in __all__:
        return getattr(importlib.import_module(_MODULES.get(name, "forebay.errors")), name)
    raise AttributeError(f"module 'forebay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
