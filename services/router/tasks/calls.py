"""One call of TaskService: whom it speaks for, its trace, and how its errors are told."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import nats.errors
import structlog

from forebay.v1.envelope_pb2 import (
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_RESOURCE_EXHAUSTED,
    OUTCOME_UNAVAILABLE,
)
from services.router.inference import Caller
from services.router.servicers import abort, abort_internal, caller_of
from services.router.spans import CANCELLED, end_server_span, server_span
from services.runtime import telemetry
from services.runtime import trace_words as words
from services.wire import names
from services.wire.outcomes import OutcomeError
from services.wire.stored_publisher import NotStoredError, StreamFullError
from services.wire.tasks.ledger import task_ids
from services.wire.tenants import DEFAULT_TENANT, tenant_of

log = structlog.get_logger()

TASK_SERVICE = "forebay.v1.TaskService"

MANY = "SubmitTasks"
"""The method that takes a stream of tasks."""

REFUSED = "task_call.refused"
"""What the log calls a refusal."""


@dataclass(slots=True)
class TaskCall:
    """A call under way.

    Attributes:
        caller: its ids and its trace.
        tenant: whom it speaks for.
        many: it may bring any number of tasks, which have no spans of their own in its trace.
        stored_count: tasks that it stored.
    """

    caller: Caller
    tenant: str = DEFAULT_TENANT
    many: bool = False
    stored_count: int = 0


@asynccontextmanager
async def open_call(context: grpc.aio.ServicerContext, method: str) -> AsyncIterator[TaskCall]:
    """Answers what is raised inside as a gRPC status, and traces the call.

    Args:
        context: of the call.
        method: its last word, such as `SubmitTask`.
    """
    caller = caller_of(context)
    name = f"{TASK_SERVICE}/{method}"
    span = server_span(name, caller) if telemetry.enabled() else None
    caller.request_id = os.urandom(16).hex()
    caller.trace_id = telemetry.trace_id(caller.traceparent) or caller.request_id
    failed: OutcomeError | str | None = CANCELLED
    call = TaskCall(caller, many=method == MANY)
    try:
        call.tenant = tenant_of(context.invocation_metadata())
        context.set_trailing_metadata((("forebay-trace-id", caller.trace_id),))
        yield call
        failed = None
    except (OutcomeError, NotStoredError, nats.errors.Error, TimeoutError) as error:
        outcome_error = outcome_of(error)
        failed = outcome_error
        await abort(context, outcome_error, caller, REFUSED)
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        failed = "internal"
        log.exception("task_call.failed", method=method, trace_id=caller.trace_id)
        raise await abort_internal(context, caller, REFUSED) from error
    finally:
        if span is not None:
            if call.stored_count:
                span.set({words.TASK_COUNT: call.stored_count})
            end_server_span(span, caller, failed)


def outcome_of(error: Exception) -> OutcomeError:
    """What a caller is told of an error from JetStream."""
    if isinstance(error, OutcomeError):
        return error
    if isinstance(error, StreamFullError):
        return OutcomeError(
            OUTCOME_RESOURCE_EXHAUSTED,
            f"the storage for tasks that have ended is full ({error}): purge tasks, give them a "
            "shorter result_ttl, or raise max_bytes of its stream",
            retry_after_s=5.0,
        )
    if isinstance(error, NotStoredError):
        return OutcomeError(
            OUTCOME_UNAVAILABLE, f"the queue (NATS) has refused: {error}", retry_after_s=1.0
        )
    return OutcomeError(
        OUTCOME_UNAVAILABLE,
        "the queue (NATS) cannot be reached at the moment; try again in a second",
        retry_after_s=1.0,
    )


def checked_task_name(name: str) -> tuple[str, str]:
    """Ids of the deployment and the task of a request's `name`.

    Raises:
        OutcomeError: INVALID_ARGUMENT if it is not the name of a task.
    """
    try:
        return task_ids(name)
    except names.InvalidNameError as error:
        raise OutcomeError(OUTCOME_INVALID_ARGUMENT, f"name: {error}") from error


def checked_parent(parent: str) -> str:
    """Id of the deployment of a request's `parent`.

    Raises:
        OutcomeError: INVALID_ARGUMENT if it is not the name of a deployment.
    """
    try:
        return names.deployment_id(parent)
    except names.InvalidNameError as error:
        raise OutcomeError(OUTCOME_INVALID_ARGUMENT, f"parent: {error}") from error
