"""Pure: the messages of calls about tasks."""

import secrets
from collections.abc import Iterable, Mapping

from forebay.errors import InvalidRequestError
from forebay.task_client.options import TaskOptions, task_of
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.task_pb2 import ListTasksRequest, PurgeTasksRequest, SubmitTaskRequest, Task
from services.wire import names
from services.wire.tasks import states as task_states


def submission(
    request: InferRequest,
    batch: str | None,
    batch_index: int | None,
    idempotency_key: str | None,
    options: TaskOptions,
) -> SubmitTaskRequest:
    """A task to submit, which may be submitted again and is the same task then.

    Raises:
        InvalidRequestError: if an option has a value that no task can have.
    """
    task = task_of(**options)
    task.batch = batch or ""
    if batch_index is not None:
        if not 0 <= batch_index < 2**63:
            raise InvalidRequestError(f"batch_index = {batch_index}: legal is 0 and above")
        task.batch_index = batch_index
    if idempotency_key:
        task.idempotency_key = idempotency_key
    elif batch_index is None:
        task.idempotency_key = f"call-{secrets.token_hex(16)}"
    return SubmitTaskRequest(request=request, task=task)


def listing(
    deployment: str | None,
    states: Iterable[str],
    batch: str | None,
    labels: Mapping[str, str] | None,
) -> ListTasksRequest:
    """Which tasks to list.

    Raises:
        InvalidRequestError: if there can be no such deployment or state.
    """
    return ListTasksRequest(
        parent=_parent(deployment) if deployment else "",
        states=_states(states),
        batch=batch or "",
        labels=labels or {},
    )


def purge(
    deployment: str, states: Iterable[str], batch: str | None, dry_run: bool
) -> PurgeTasksRequest:
    """Which tasks to forget.

    Raises:
        InvalidRequestError: if there can be no such deployment or state.
    """
    return PurgeTasksRequest(
        parent=_parent(deployment),
        states=_states(states),
        batch=batch or "",
        validate_only=dry_run,
    )


def _parent(deployment: str) -> str:
    try:
        return names.deployment_name(names.check_id(deployment, "deployment"))
    except names.InvalidNameError as error:
        raise InvalidRequestError(str(error)) from error


def _states(words: Iterable[str]) -> list[Task.State]:
    if isinstance(words, str):
        words = (words,)
    try:
        return [task_states.parse(word) for word in words]
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
