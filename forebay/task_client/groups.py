"""Pure: inputs as tasks: each item a task of its own, or several joined along axis 0."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import ArrayLike, NDArray

from forebay import tensors
from forebay.errors import InvalidRequestError, InvalidResponseError
from forebay.inference import InferResult, build_request
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.task_pb2 import SubmitTaskRequest, Task
from services.wire.limits import MAX_BODY_BYTES

Inputs: TypeAlias = Mapping[str, ArrayLike]
Encode: TypeAlias = Callable[[Any], Inputs]
Tensor: TypeAlias = tuple[str, list[int], bytes]


@dataclass(slots=True, eq=False)
class Group:
    """Items that are one task.

    Attributes:
        index: position of the task in its batch.
        positions: those of its items.
        row_counts: rows of each item; empty if the task is one item that is not split.
        submission: the task to submit; None once it is stored or need not be.
        size_bytes: of the submission.
        refused_since_s: when it was first refused in a way that may pass; None if it was not.
    """

    index: int
    positions: list[int]
    row_counts: list[int]
    submission: SubmitTaskRequest | None
    size_bytes: int
    refused_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class ItemFailed:
    """An item that cannot become a task."""

    position: int
    error: Exception


Made: TypeAlias = Group | ItemFailed


class Assembler:
    """Makes tasks of items, in their order. What an item raises is that item's alone."""

    def __init__(
        self,
        deployment: str,
        task: Task,
        batch_size: int = 1,
        outputs: Sequence[str] | None = None,
        model_version: str = "",
        encode: Encode | None = None,
    ) -> None:
        """Prepares it.

        Args:
            deployment: that runs the tasks.
            task: options of every task, its batch among them.
            batch_size: items of a task, 1 or more.
            outputs: wanted ones; None means all.
            model_version: of the model; empty lets Triton choose.
            encode: makes the inputs of an item; None: items are inputs.
        """
        self._deployment = deployment
        self._task = task
        self._batch_size = batch_size
        self._outputs = outputs
        self._model_version = model_version
        self._encode = encode
        self._positions: list[int] = []
        self._items: list[dict[str, Tensor]] = []
        self._next_index = 0

    def add(self, position: int, item: Any) -> list[Made]:
        """Takes an item in; returns what is ready by it."""
        made: list[Made] = []
        try:
            inputs = item if self._encode is None else self._encode(item)
            if not isinstance(inputs, Mapping):
                raise InvalidRequestError(
                    f"an item is {type(inputs).__name__}; it must map input names to arrays"
                )
            if self._batch_size == 1:
                return [self._single(position, inputs)]
            self._join(position, inputs)
        except Exception as error:  # noqa: BLE001 - whatever an item raises is handed to its caller
            made.append(ItemFailed(position, error))
        self._next_index = position // self._batch_size
        if (position + 1) % self._batch_size == 0:
            made += self.end()
        return made

    def end(self) -> list[Made]:
        """What is left when there are no more items."""
        if not self._items:
            return []
        positions, items = self._positions, self._items
        self._positions, self._items = [], []
        request = build_request(self._deployment, {}, self._outputs, None, self._model_version)
        row_counts = [_rows(item) for item in items]
        for name, (datatype, shape, _) in items[0].items():
            joined = [sum(row_counts), *shape[1:]]
            request.inputs.add(name=name, datatype=datatype, shape=joined)
            request.raw_input_contents.append(b"".join(item[name][2] for item in items))
        try:
            return [self._group(self._next_index, positions, row_counts, request)]
        except InvalidRequestError as error:
            return [ItemFailed(position, error) for position in positions]

    def _single(self, position: int, inputs: Inputs) -> Group:
        request = build_request(self._deployment, inputs, self._outputs, None, self._model_version)
        return self._group(position, [position], [], request)

    def _join(self, position: int, inputs: Inputs) -> None:
        encoded: dict[str, Tensor] = {}
        for name, value in inputs.items():
            try:
                encoded[name] = tensors.encode(value)
            except ValueError as error:
                raise InvalidRequestError(f"input {name!r}: {error}") from error
            if not encoded[name][1]:
                raise InvalidRequestError(
                    f"input {name!r} has no axis: with batch_size = {self._batch_size} items are "
                    "joined along their first axis"
                )
        _check_rows(encoded)
        if self._items:
            _check_alike(encoded, self._items[0], self._positions[0])
        self._positions.append(position)
        self._items.append(encoded)

    def _group(
        self, index: int, positions: list[int], row_counts: list[int], request: InferRequest
    ) -> Group:
        size_bytes = request.ByteSize()
        if size_bytes > MAX_BODY_BYTES:
            items = f"{len(positions)} items are" if row_counts else "the item is"
            advice = "; a smaller batch_size helps" if len(positions) > 1 else ""
            raise InvalidRequestError(
                f"{items} {size_bytes} bytes; a request has at most {MAX_BODY_BYTES}{advice}"
            )
        submission = SubmitTaskRequest(request=request, task=self._task)
        submission.task.batch_index = index
        return Group(index, positions, row_counts, submission, size_bytes)


def split(group: Group, result: InferResult) -> list[tuple[int, InferResult | Exception]]:
    """The result of a task as the results of its items: views of the task's outputs."""
    if not group.row_counts:
        return [(group.positions[0], result)]
    total = sum(group.row_counts)
    for name, array in result.items():
        if array.ndim == 0 or array.shape[0] != total:
            error = InvalidResponseError(
                f"output {name!r} has the shape {list(array.shape)}, but the inputs joined had "
                f"{total} rows: the model does not answer each row with one, or the batch was "
                "begun with another batch_size",
                request_id=result.request_id,
                trace_id=result.trace_id,
            )
            return [(position, error) for position in group.positions]
    parts: list[tuple[int, InferResult | Exception]] = []
    start = 0
    for position, rows in zip(group.positions, group.row_counts, strict=True):
        outputs: dict[str, NDArray[Any]] = {
            name: array[start : start + rows] for name, array in result.items()
        }
        start += rows
        parts.append(
            (
                position,
                InferResult(
                    outputs,
                    result.model_version,
                    result.request_id,
                    result.trace_id,
                    result.index,
                    result.final,
                ),
            )
        )
    return parts


def _rows(item: dict[str, Tensor]) -> int:
    return next(iter(item.values()))[1][0]


def _check_rows(item: dict[str, Tensor]) -> None:
    counts = {name: shape[0] for name, (_, shape, _) in item.items()}
    if not counts:
        raise InvalidRequestError("the item has no inputs")
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise InvalidRequestError(f"inputs of one item differ in their first axis: {said}")


def _check_alike(item: dict[str, Tensor], first: dict[str, Tensor], first_position: int) -> None:
    if item.keys() != first.keys():
        raise InvalidRequestError(
            f"inputs {sorted(item)} cannot be joined with those of item {first_position}, "
            f"{sorted(first)}: items of one group have the same inputs"
        )
    for name, (datatype, shape, _) in item.items():
        other_type, other_shape, _ = first[name]
        if (datatype, shape[1:]) != (other_type, other_shape[1:]):
            raise InvalidRequestError(
                f"input {name!r} is {datatype} {shape}, which cannot be joined with item "
                f"{first_position}, {other_type} {other_shape}: items of one group have the same "
                "type and the same shape after the first axis; batch_size=1 takes any"
            )
