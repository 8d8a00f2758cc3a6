"""Pure: what a caller may say about a task, and the message it becomes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TypedDict, Unpack

from forebay.errors import InvalidRequestError
from forebay.v1.task_pb2 import Task

_LONGEST_S = 1e9
_DURATIONS = {
    "min_backoff_s": "min_backoff",
    "max_backoff_s": "max_backoff",
    "attempt_timeout_s": "attempt_timeout",
    "ttl_s": "ttl",
    "result_ttl_s": "result_ttl",
}


class TaskOptions(TypedDict, total=False):
    """Options of a task; what is left out, or None, has the default given here.

    priority: which waiting tasks come first: `high`, `normal` (the default) or `low`.
    labels: to list tasks by; at most 16, keys and values of at most 63 characters.
    max_retries: attempts after the first that may fail, 0 to 20; 3.
    min_backoff_s: pause before the second attempt, doubled with each further one, 0 to 3600; 1.
    max_backoff_s: longest pause between two attempts, up to 86400; 60.
    attempt_timeout_s: longest an attempt may run, 0.001 to 86400; the deployment's
        `request_timeout_s`.
    ttl_s: the task is expired if it has not ended so long after it was submitted, 1 to 2592000
        (30 days); 86400.
    result_ttl_s: how long task and result are kept after the end, 1 to 2592000; 86400.
    callback_url: where to POST the task when it has ended; nowhere.
    """

    priority: str | None
    labels: Mapping[str, str] | None
    max_retries: int | None
    min_backoff_s: float | None
    max_backoff_s: float | None
    attempt_timeout_s: float | None
    ttl_s: float | None
    result_ttl_s: float | None
    callback_url: str | None


def task_of(**options: Unpack[TaskOptions]) -> Task:
    """The message that says the options; the router checks their ranges.

    Raises:
        InvalidRequestError: if an option has a value that no task can have.
        TypeError: if there is no such option.
    """
    unknown = sorted(options.keys() - TaskOptions.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"{unknown[0]!r} is no option of a task: legal are "
            f"{', '.join(TaskOptions.__annotations__)}"
        )
    task = Task(priority=_priority(options.get("priority") or "normal"))
    max_retries = options.get("max_retries")
    if max_retries is not None:
        task.max_retries = _retries(max_retries)
    for name, field in _DURATIONS.items():
        _set_duration(task, name, field, options.get(name))
    labels = options.get("labels") or {}
    try:
        task.labels.update(labels)
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequestError(
            f"labels = {labels!r}: legal is a mapping of texts to texts"
        ) from None
    url = options.get("callback_url") or ""
    try:
        task.callback_url = url
    except (TypeError, ValueError):
        raise InvalidRequestError(f"callback_url = {url!r}: legal is a URL as text") from None
    return task


def _priority(word: str) -> Task.Priority:
    legal = {
        "high": Task.PRIORITY_HIGH,
        "normal": Task.PRIORITY_NORMAL,
        "low": Task.PRIORITY_LOW,
    }
    try:
        return legal[word.lower()]
    except (KeyError, AttributeError):
        raise InvalidRequestError(f"priority = {word!r}: legal are high, normal, low") from None


def _retries(count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 2**31:
        raise InvalidRequestError(f"max_retries = {count!r}: legal is a whole number from 0 to 20")
    return count


def _set_duration(task: Task, name: str, field: str, value_s: object) -> None:
    if value_s is None:
        return
    if not isinstance(value_s, int | float) or not 0 <= value_s <= _LONGEST_S:
        raise InvalidRequestError(f"{name} = {value_s!r}: it is a number of seconds, 0 or more")
    getattr(task, field).FromTimedelta(timedelta(seconds=value_s))
