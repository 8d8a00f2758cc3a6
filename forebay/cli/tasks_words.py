"""What command lines say about tasks, and what clients' errors are called there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from forebay.cli.failure import FAILED, NOT_FOUND, UNREACHABLE, USAGE, CliError
from forebay.cli.tasks_options import Priority
from forebay.errors import (
    DeploymentNotFoundError,
    ForebayError,
    TaskNotFoundError,
    UnavailableError,
)
from forebay.task_client.options import TaskOptions


def task_options(
    priority: Priority,
    labels: Sequence[str] | None,
    max_retries: int | None,
    min_backoff_s: float | None,
    attempt_timeout_s: float | None,
    ttl_s: float | None,
    result_ttl_s: float | None,
    callback_url: str | None,
) -> TaskOptions:
    """What a command line says about tasks.

    Raises:
        CliError: if a label is none.
    """
    return TaskOptions(
        priority=priority.value,
        labels=labels_of(labels),
        max_retries=max_retries,
        min_backoff_s=min_backoff_s,
        attempt_timeout_s=attempt_timeout_s,
        ttl_s=ttl_s,
        result_ttl_s=result_ttl_s,
        callback_url=callback_url,
    )


def labels_of(given: Sequence[str] | None) -> dict[str, str]:
    """Labels as they are written on a command line.

    Raises:
        CliError: if one is not KEY=VALUE.
    """
    labels: dict[str, str] = {}
    for word in given or ():
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise CliError(f"--label {word!r}: write KEY=VALUE", USAGE)
        labels[key] = value
    return labels


@contextmanager
def told() -> Iterator[None]:
    """Turns what a client raises into a sentence with a hint, and an exit code."""
    try:
        yield
    except ForebayError as error:
        raise failure_of(error) from None
    except ExceptionGroup as group:
        known, others = group.split(ForebayError)
        if known is None or others is not None:
            raise
        raise failure_of(_first(known)) from None


def _first(group: BaseExceptionGroup[ForebayError]) -> ForebayError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def failure_of(error: ForebayError) -> CliError:
    """How a command fails with what a client raised."""
    said = error.message.rstrip(".")
    match error:
        case TaskNotFoundError():
            return CliError(f"{said}. `forebay tasks list` shows those there are.", NOT_FOUND)
        case DeploymentNotFoundError():
            return CliError(f"{said}. `forebay list` shows what is deployed.", NOT_FOUND)
        case UnavailableError():
            return CliError(
                f"{said}. Start a mesh with `forebay up`, or say where it is with --router.",
                UNREACHABLE,
            )
    return CliError(f"{said}.", USAGE if error.status is None else FAILED)
