"""What a call can fail with: one class per outcome, each with what it takes to find the request."""

from typing import TYPE_CHECKING

import grpc

from services.wire.outcomes import BY_REPLICA_KEY

if TYPE_CHECKING:
    from forebay.task_client.status import TaskStatus

REQUEST_ID_KEY = "forebay-request-id"
TRACE_ID_KEY = "forebay-trace-id"
PUSHBACK_KEY = "grpc-retry-pushback-ms"


class ForebayError(Exception):
    """A call failed.

    Attributes:
        message: what happened and, where something can be done, what to do.
        status: the gRPC status; None if the call never left this process.
        request_id: identifies the request in logs and traces; None if no router saw it.
        trace_id: W3C trace id, 32 hexadecimal digits; None if there is none.
        retry_after_s: seconds after which trying again can help; None if nothing was said.
        by_replica: the message came from a replica, and may be its model's own words.
    """

    def __init__(
        self,
        message: str,
        *,
        status: grpc.StatusCode | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        retry_after_s: float | None = None,
        by_replica: bool = False,
    ) -> None:
        super().__init__(message)
        self.by_replica = by_replica
        self.message = message
        self.status = status
        self.request_id = request_id
        self.trace_id = trace_id
        self.retry_after_s = retry_after_s


class DeploymentNotFoundError(ForebayError):
    """There is no deployment of that name."""


class InvalidRequestError(ForebayError):
    """The request is malformed, too large, or not what the model takes; repeating cannot help."""


class DeadlineExceededError(ForebayError):
    """No result arrived in time. The model may have run all the same."""


class QueueFullError(ForebayError):
    """Too much waits already; try again after `retry_after_s`."""


class UnavailableError(ForebayError):
    """The mesh cannot be reached, its queue is away, or the router is stopping."""


class PoisonRequestError(ForebayError):
    """The request killed every replica that tried it; don't repeat it."""


class ModelError(ForebayError):
    """The model raised; the message is the model's."""


class CancelledError(ForebayError):
    """The call was cancelled by the mesh.

    A cancelled asyncio task gets asyncio.CancelledError as usual, not this.
    """


class InvalidResponseError(ForebayError):
    """An answer that contradicts itself, such as a tensor whose bytes don't fit its shape."""


class TaskNotFoundError(ForebayError):
    """There is no task of that name: never submitted, forgotten since, or another tenant's."""


class IdempotencyConflictError(ForebayError):
    """The idempotency key was used with another content."""


class TaskStateError(ForebayError):
    """The task is not in a state that allows this, such as trying again what has not failed."""


class TaskError(ForebayError):
    """A task has ended without a result.

    Attributes:
        task: the task as it ended, with its attempts.
    """

    def __init__(
        self, message: str, task: "TaskStatus", status: grpc.StatusCode | None = None
    ) -> None:
        super().__init__(message, status=status, request_id=task.id, trace_id=task.trace_id)
        self.task = task


class TaskFailedError(TaskError):
    """The task's attempts are used up, or trying again cannot help.

    `task.attempts` says how each ended; `task.error` is what went wrong last.
    """


class TaskCancelledError(TaskError):
    """The task was cancelled."""


class TaskExpiredError(TaskError):
    """The task had not ended within its time to live."""


_BY_STATUS: dict[grpc.StatusCode, type[ForebayError]] = {
    grpc.StatusCode.NOT_FOUND: DeploymentNotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QueueFullError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.ABORTED: PoisonRequestError,
    grpc.StatusCode.INTERNAL: ModelError,
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.ALREADY_EXISTS: IdempotencyConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: TaskStateError,
}


def from_status(
    status: grpc.StatusCode, message: str, retry_after_s: float | None = None
) -> ForebayError:
    """The typed error for a status that a task was refused with: no model has seen it."""
    kind = _BY_STATUS.get(status, ForebayError)
    if kind is ModelError:
        kind = ForebayError
    return kind(message, status=status, retry_after_s=retry_after_s)


def from_rpc_error(
    error: grpc.RpcError,
    address: str,
    trace_id: str | None,
    not_found: type[ForebayError] = DeploymentNotFoundError,
) -> ForebayError:
    """The typed error for a failed gRPC call.

    Args:
        error: what the stub raised.
        address: where the call went, for the message if nothing answers there.
        trace_id: trace id of the client's own span, if the answer carries none.
        not_found: what NOT_FOUND means for this call.
    """
    status: grpc.StatusCode = error.code()
    message: str = error.details() or status.name
    metadata = dict(error.trailing_metadata() or ())
    kind = _BY_STATUS.get(status, ForebayError)
    if kind is DeploymentNotFoundError:
        kind = not_found
    request_id = metadata.get(REQUEST_ID_KEY)
    if kind is QueueFullError and "message larger than max" in message:
        # gRPC's own limit, not the queue: repeating cannot help.
        kind = InvalidRequestError
    elif kind is UnavailableError and request_id is None:
        message = f"nothing serves at {address}: {message}"
    return kind(
        message,
        status=status,
        request_id=request_id,
        trace_id=metadata.get(TRACE_ID_KEY) or trace_id,
        retry_after_s=_seconds(metadata.get(PUSHBACK_KEY)),
        by_replica=BY_REPLICA_KEY in metadata,
    )


def _seconds(milliseconds: str | None) -> float | None:
    # gRPC's pushback may be negative: do not try again.
    if milliseconds is None or not milliseconds.isdecimal():
        return None
    return int(milliseconds) / 1000
