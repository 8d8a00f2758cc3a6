"""`@forebay.function`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

from forebay.functions.call_options import CallOptions
from forebay.functions.function import Function
from forebay.functions.scaling import Scaling
from forebay.functions.settings import FunctionSettings, check_target, name_for
from forebay.functions.sources import Include

_RESOURCES = ("gpus", "gpu_memory_bytes", "accelerator_type", "cpus", "memory_bytes", "custom")
_OF_CALLS = (
    "max_retries",
    "min_backoff_s",
    "max_backoff_s",
    "attempt_timeout_s",
    "ttl_s",
    "result_ttl_s",
)


class Options(TypedDict, total=False):
    """Parameters of `forebay.function`; ranges are those of docs/models.md.

    Attributes:
        name: of the deployment; left out: `file-type` of FileType and of file_type.
        on_start: called once in each worker process before the first item, for a plain function; a
            class has a method of that name.
        gpus: GPUs of a replica: a whole number, or a fraction of one.
        gpu_memory_bytes: GPU memory of a replica.
        accelerator_type: word in the product name of its GPUs.
        cpus: CPUs of a replica, and threads of the libraries in it.
        memory_bytes: memory of a replica.
        custom: other resources by the names nodes give them.
        workers: processes of a replica that run the function, 1 to 64; 1 by default.
        requirements: lines of a requirements.txt. numpy is older than 2.
        scaling: how the number of replicas follows the load; by default QueueDepth(): one replica
            when there is something to do, none otherwise.
        batch: whether the function takes a list of items and returns a list of results.
        max_batch_size: items of a list at most, 1 to 1024; 32 by default.
        batch_delay_s: seconds to wait for more items when a list is not full; 0.005 by default.
        max_ongoing_requests: requests one replica works on at once; by default workers + 1, times
            max_batch_size with batch=True, at most 1024.
        request_timeout_s: seconds a call without a deadline gets, and the longest an attempt runs;
            60 by default.
        max_queued_requests: requests that may wait or run through one router; 1000 by default.
        placement: `compact`, the default, or `spread`.
        environment: variables of every replica.
        volumes: a list of names, each a text or `{name: {"read_only": True}}`; or one mapping of
            names to such options.
        include: further files, directories or modules of the project; imports are found without.
        max_retries: attempts of a task after the first.
        min_backoff_s: pause before the second attempt, doubling from then on, in seconds.
        max_backoff_s: longest pause, in seconds.
        attempt_timeout_s: seconds one attempt of a task may take.
        ttl_s: seconds within which a task must have ended.
        result_ttl_s: seconds for which a task's result is kept.
    """

    name: str
    on_start: Callable[[], Any]
    gpus: float
    gpu_memory_bytes: int
    accelerator_type: str
    cpus: float
    memory_bytes: int
    custom: Mapping[str, float]
    workers: int
    requirements: Sequence[str]
    scaling: Scaling | Mapping[str, Any]
    batch: bool
    max_batch_size: int
    batch_delay_s: float
    max_ongoing_requests: int
    request_timeout_s: float
    max_queued_requests: int
    placement: str
    environment: Mapping[str, str]
    volumes: Sequence[str | Mapping[str, Any]] | Mapping[str, Any]
    include: Sequence[Include]
    max_retries: int
    min_backoff_s: float
    max_backoff_s: float
    attempt_timeout_s: float
    ttl_s: float
    result_ttl_s: float


@overload
def function(target: Callable[..., Any], /) -> Function: ...
@overload
def function(**options: Unpack[Options]) -> Callable[[Callable[..., Any]], Function]: ...
def function(target: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function, or a class with `__call__`, one that can be deployed.

    With or without parentheses. Nothing is checked here but what is decorated and the names of the
    parameters: `deploy` checks their values, with the errors of a deployment file.

    Args:
        target: what is decorated, without parentheses.
        options: see `Options`. None is as if it were left out.

    Raises:
        FunctionDefinitionError: if it is neither a function nor a class with `__call__`.
        TypeError: if there is no such parameter.
    """
    unknown = [name for name in options if name not in Options.__annotations__]
    if unknown:
        legal = ", ".join(Options.__annotations__)
        raise TypeError(f"forebay.function has no parameter {unknown[0]!r}; legal are {legal}")
    given = {name: value for name, value in options.items() if value is not None}
    resources = {name: given.pop(name) for name in _RESOURCES if name in given}
    call_options = CallOptions(**{name: given.pop(name) for name in _OF_CALLS if name in given})

    def decorate(found: Callable[..., Any]) -> Function:
        check_target(found, given.get("on_start"))
        settings = FunctionSettings(**{"name": name_for(found), **given}, resources=resources)
        return Function(found, settings, call_options)

    return decorate if target is None else decorate(target)
