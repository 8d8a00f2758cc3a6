"""What `@forebay.function(…)` is told, checked as a deployment file is, with the same errors."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay import deployment_file
from forebay.deployment_file import DeploymentFileError, DeploymentSpec
from forebay.deployment_yaml import Text
from forebay.functions.errors import FunctionDefinitionError
from forebay.functions.scaling import QueueDepth, Scaling
from forebay.functions.sources import Include, Source

MAX_SLOTS = 1024
"""`max_ongoing_requests` at most."""

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
    volumes: Sequence[str | Mapping[str, Any]] = ()
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
            "environment": dict(self.environment),
            "max_ongoing_requests": self.slots(),
            "request_timeout_s": self.request_timeout_s,
            "max_queued_requests": self.max_queued_requests,
        }
        if self.volumes:
            values["volumes"] = list(self.volumes)
        try:
            # One line stands for all: a decorator's arguments have none of their own.
            return deployment_file.parsed(Text(str(source.file), values, {"": source.line})).spec
        except DeploymentFileError as error:
            # A parameter of the decorator is a key of `resources` in a file.
            raise FunctionDefinitionError(str(error).replace(" resources.", " ")) from None

    def _check(self, source: Source) -> None:
        """Refuses what a deployment file has no key for."""
        where = f"{source.file}:{source.line}"
        if self.batch and not 1 <= self.max_batch_size <= MAX_BATCH_SIZE:
            raise FunctionDefinitionError(
                f"{where}: max_batch_size = {self.max_batch_size}; legal is a whole number from 1 "
                f"to {MAX_BATCH_SIZE}"
            )
        if not 0 <= self.batch_delay_s <= MAX_BATCH_DELAY_S:
            raise FunctionDefinitionError(
                f"{where}: batch_delay_s = {self.batch_delay_s}; legal is seconds from 0 to "
                f"{MAX_BATCH_DELAY_S:g}"
            )
        if not isinstance(self.workers, int) or not 1 <= self.workers <= 64:
            raise FunctionDefinitionError(
                f"{where}: workers = {self.workers!r}; legal is a whole number from 1 to 64"
            )
        wrong = [line for line in self.requirements if not isinstance(line, str) or "\n" in line]
        if isinstance(self.requirements, str) or wrong:
            raise FunctionDefinitionError(
                f"{where}: requirements = {self.requirements!r}; legal is a list of lines of a "
                'requirements.txt, such as ["onnxruntime==1.31.1"]'
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
