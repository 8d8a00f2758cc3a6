"""What `@forebay.function(…)` is told, checked as a deployment file is, with the same errors."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay import deployment_file
from forebay.deployment_file import DeploymentFileError, DeploymentSpec
from forebay.deployment_yaml import Text
from forebay.errors import InvalidRequestError
from forebay.functions.call_options import CallOptions
from forebay.functions.calls import inputs_of
from forebay.functions.errors import FunctionDefinitionError
from forebay.functions.scaling import QueueDepth, Scaling
from forebay.functions.sources import Include, Source
from forebay.inference import build_request
from forebay.task_client.options import task_of
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.task_pb2 import SubmitTaskRequest
from services.wire.names import deployment_name
from services.wire.outcomes import OutcomeError
from services.wire.tasks.submission import envelope_of
from services.wire.tenants import DEFAULT_TENANT

MAX_SLOTS = 1024
"""`max_ongoing_requests` at most."""

MAX_WORKERS = 64
MAX_BATCH_SIZE = 1024
MAX_BATCH_DELAY_S = 60.0

_DEFAULT_SCALING = QueueDepth()


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings:
    """How a function is deployed; the parameters of `forebay.function` say what each means."""

    name: str
    on_start: Callable[[], Any] | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1
    requirements: Sequence[str] = ()
    scaling: Scaling | Mapping[str, Any] = _DEFAULT_SCALING
    batch: bool = False
    max_batch_size: int = 32
    batch_delay_s: float = 0.005
    max_ongoing_requests: int | None = None
    request_timeout_s: float = 60.0
    max_queued_requests: int = 1000
    placement: str = "compact"
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[str | Mapping[str, Any]] | Mapping[str, Any] = ()
    include: Sequence[Include] = ()

    def slots(self) -> int:
        """`max_ongoing_requests`, or what it is by default.

        As many as the workers can work on, and once more, so that the next is there when one is
        done. More would only wait in Triton, where no idle replica can take them.
        """
        if self.max_ongoing_requests is not None:
            return self.max_ongoing_requests
        each = self.max_batch_size if self.batch else 1
        return min(MAX_SLOTS, each * (self.workers + 1))

    def spec(self, source: Source) -> DeploymentSpec:
        """The deployment, as a file would declare it.

        Raises:
            FunctionDefinitionError: if a parameter is not legal; one line for each.
        """
        self._check(source)
        scaling = self.scaling
        values: dict[str, Any] = {
            "name": self.name,
            "model": ".",
            "scaling": scaling.keys_set() if isinstance(scaling, Scaling) else scaling,
            "resources": {**self.resources, "workers": self.workers},
            "placement": self.placement,
            "environment": self.environment,
            "max_ongoing_requests": self.slots(),
            "request_timeout_s": self.request_timeout_s,
            "max_queued_requests": self.max_queued_requests,
        }
        if self.volumes:
            values["volumes"] = _listed(self.volumes)
        try:
            # One line stands for all: a decorator's arguments have none of their own.
            return deployment_file.parsed(Text(str(source.file), values, {"": source.line})).spec
        except DeploymentFileError as error:
            # A parameter of the decorator is a key of `resources` in a file.
            raise FunctionDefinitionError(str(error).replace(" resources.", " ")) from None

    def _check(self, source: Source) -> None:
        """Refuses what a deployment file has no key for."""
        checked = {
            "batch": (isinstance(self.batch, bool), "True or False"),
            "max_batch_size": (
                _is_whole(self.max_batch_size, MAX_BATCH_SIZE),
                f"a whole number from 1 to {MAX_BATCH_SIZE}",
            ),
            "batch_delay_s": (
                isinstance(self.batch_delay_s, int | float)
                and 0 <= self.batch_delay_s <= MAX_BATCH_DELAY_S,
                f"seconds from 0 to {MAX_BATCH_DELAY_S:g}",
            ),
            "workers": (
                _is_whole(self.workers, MAX_WORKERS),
                f"a whole number from 1 to {MAX_WORKERS}",
            ),
            "requirements": (
                _are_lines(self.requirements),
                'a list of lines of a requirements.txt, such as ["onnxruntime==1.31.1"]',
            ),
            "include": (
                isinstance(self.include, list | tuple),
                'a list of files, directories or modules, such as ["labels.txt"]',
            ),
            "volumes": (
                isinstance(self.volumes, list | tuple | Mapping),
                'a list of names such as ["data"], or {"data": {"read_only": True}}',
            ),
        }
        for name, (is_legal, legal) in checked.items():
            if not is_legal:
                raise FunctionDefinitionError(
                    f"{source.file}:{source.line}: {name} = {getattr(self, name)!r}; "
                    f"legal is {legal}"
                )


def check_calls(name: str, options: CallOptions, source: Source) -> None:
    """Checks the options of tasks as a router does when it is given one.

    Raises:
        FunctionDefinitionError: if one is not legal; it names it, its value and what is.
    """
    request = build_request(name, inputs_of((), {}), None, None, "")
    try:
        submitted = SubmitTaskRequest(request=request, task=task_of(**options.of_tasks()))
        envelope_of(submitted, Deployment(name=deployment_name(name)), DEFAULT_TENANT, 0.0)
    except (OutcomeError, InvalidRequestError) as error:
        said = str(error).replace("task.", "")
        raise FunctionDefinitionError(f"{source.file}:{source.line}: {said}") from None


def _listed(volumes: Sequence[str | Mapping[str, Any]] | Mapping[str, Any]) -> list[Any]:
    """Volumes as a deployment file lists them: a mapping has one item for each name."""
    if isinstance(volumes, Mapping):
        return [{name: options} for name, options in volumes.items()]
    return list(volumes)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _are_lines(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(line, str) and "\n" not in line for line in value
    )


def check_target(target: Any, on_start: Callable[[], Any] | None) -> None:
    """Refuses what cannot be called as a function is.

    Raises:
        FunctionDefinitionError: if it is neither a function nor a class with `__call__`, is
            asynchronous or a generator, or has two `on_start`.
    """
    called = target
    if isinstance(target, type):
        called = target.__dict__.get("__call__") or getattr(target, "__call__", None)  # noqa: B004
        if not inspect.isfunction(called):
            raise FunctionDefinitionError(
                f"class {target.__qualname__} has no method __call__; give it one that takes an "
                "item and returns its result"
            )
        if on_start is not None:
            raise FunctionDefinitionError(
                f"class {target.__qualname__} is given on_start; make it a method of the class"
            )
    elif not inspect.isfunction(target):
        raise FunctionDefinitionError(
            f"{target!r} is neither a function nor a class with __call__, so it cannot become a "
            "deployment"
        )
    if on_start is not None and not callable(on_start):
        raise FunctionDefinitionError(
            f"on_start = {on_start!r} of {target.__qualname__}; legal is a function "
            "without arguments"
        )
    assert called is not None, "a function"
    if inspect.iscoroutinefunction(called) or inspect.isgeneratorfunction(called):
        raise FunctionDefinitionError(
            f"{target.__qualname__} is asynchronous or a generator; write a plain function, which "
            "may use asyncio.run inside and return a list"
        )


def name_for(target: Any) -> str:
    """The deployment's name by default: FileType and file_type become `file-type`."""
    words: list[str] = []
    for index, letter in enumerate(target.__qualname__):
        before = target.__qualname__[index - 1] if index else "_"
        if letter.isupper() and (before.islower() or before.isdigit()):
            words.append("-")
        words.append("-" if letter == "_" else letter.lower())
    return "".join(words).strip("-")
