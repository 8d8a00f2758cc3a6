"""Pure: what a map is to do, checked."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import InvalidRequestError
from forebay.task_client.groups import Encode
from forebay.task_client.options import TaskOptions, task_of
from forebay.v1.task_pb2 import Task
from services.wire.names import quoted

MAX_BATCH_SIZE = 100_000
MAX_IN_FLIGHT = 1_000_000
DEFAULT_PATIENCE_S = 300.0

_BATCH = re.compile(r"[a-z][a-z0-9-]{0,62}")


class MapOptions(TaskOptions, total=False):
    """Options of a map, beside those of its tasks; what is left out has the default given here.

    outputs: names of the wanted outputs; all.
    model_version: version of the model inside the deployment; Triton chooses.
    batch_size: so many items are one task, 1 to 100,000: their inputs are joined along the first
        axis and the outputs split again. They succeed and fail together; fewer, larger tasks are
        faster; 1.
    ordered: results come in the order of inputs, else as they end; True.
    max_in_flight: items handed in whose results were not handed out, at most; at least
        `batch_size`. It bounds memory: of each of them the input or the result is held; 1000.
    encode: makes the inputs of an item, in the thread that reads the items; what it raises is that
        item's error; None: items are inputs.
    patience_s: seconds to go on while the mesh is away or its queue has no room; 300.
    """

    outputs: Sequence[str] | None
    model_version: str
    batch_size: int
    ordered: bool
    max_in_flight: int
    encode: Encode | None
    patience_s: float


@dataclass(frozen=True, slots=True)
class MapPlan:
    """A map over many inputs.

    Attributes:
        deployment: that runs them.
        task: options of every task, with the batch.
        resumes: whether the batch may have been begun before.
        outputs: wanted ones; None means all.
        model_version: of the model; empty lets Triton choose.
        batch_size: items of a task.
        ordered: whether results come in the order of the inputs.
        max_in_flight: items handed in and not handed out, at most.
        first: position of the first input, a multiple of `batch_size`.
        encode: makes the inputs of an item; None: items are inputs.
        patience_s: how long a mesh that is away, or whose queue is full, is tried again.
    """

    deployment: str
    task: Task
    resumes: bool
    outputs: Sequence[str] | None = None
    model_version: str = ""
    batch_size: int = 1
    ordered: bool = True
    max_in_flight: int = 1000
    first: int = 0
    encode: Encode | None = None
    patience_s: float = DEFAULT_PATIENCE_S

    @property
    def batch(self) -> str:
        """Id of the batch."""
        return self.task.batch

    @property
    def parent(self) -> str:
        """Resource name of the deployment."""
        return f"deployments/{self.deployment}"

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            raise InvalidRequestError(
                f"batch_size = {self.batch_size}: legal is 1 to {MAX_BATCH_SIZE}"
            )
        if not self.batch_size <= self.max_in_flight <= MAX_IN_FLIGHT:
            raise InvalidRequestError(
                f"max_in_flight = {self.max_in_flight}: legal is {self.batch_size}, which is "
                f"batch_size, to {MAX_IN_FLIGHT}"
            )
        if not self.patience_s >= 0:
            raise InvalidRequestError(f"patience_s = {self.patience_s}: legal is 0 and above")
        if self.first % self.batch_size:
            raise InvalidRequestError(
                f"first = {self.first}: it must be a multiple of batch_size = {self.batch_size}"
            )


def plan_of(deployment: str, batch: str | None, options: MapOptions, first: int = 0) -> MapPlan:
    """The plan that a caller's options make.

    Args:
        deployment: that runs it.
        batch: its id; None makes a new one.
        options: of the map and of each task.
        first: position of the first input.

    Raises:
        InvalidRequestError: if one of them is not legal.
        TypeError: if there is no such option.
    """
    of_map = {name: value for name, value in options.items() if name in _OF_MAP}
    of_task: Any = {name: value for name, value in options.items() if name not in _OF_MAP}
    task = task_of(**of_task)
    if batch is not None and _BATCH.fullmatch(batch) is None:
        raise InvalidRequestError(
            f"batch = {quoted(batch)}: a batch is 1 to 63 of a-z, 0-9 and '-', starting with a "
            "letter"
        )
    task.batch = batch or f"map-{secrets.token_hex(10)}"
    plan: Any = MapPlan
    made: MapPlan = plan(
        deployment=deployment, task=task, resumes=batch is not None, first=first, **of_map
    )
    return made


_OF_MAP = MapOptions.__annotations__.keys() - TaskOptions.__annotations__.keys()
