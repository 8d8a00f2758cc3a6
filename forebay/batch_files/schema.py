"""Pure: what a model takes and gives, as far as rows of a file need to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay.batch_files.errors import BatchFileError
from forebay.tensors import BF16, BYTES, NUMPY_TYPES

FUNCTION_PARAMETER = "forebay_function"
_FUNCTION_INPUT, _FUNCTION_OUTPUT = "ITEM", "RESULT"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model.

    Attributes:
        name: its name.
        datatype: as Triton spells it: BYTES, FP32 …
        dims: of one row, without the batch; -1 is any.
        optional: whether it may be left out.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.datatype} {list(self.dims)})"


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """What a model takes and gives.

    Attributes:
        inputs: by name.
        outputs: by name.
        max_batch_size: rows in one request; 0: the model has no batch axis.
        is_function: whether it is a Python function of Forebay's: a row is its argument.
    """

    inputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    outputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    max_batch_size: int = 0
    is_function: bool = False

    def check(self, batch_size: int, wanted: Sequence[str], named: Mapping[str, str]) -> None:
        """Checks what a command asks of the model.

        Args:
            batch_size: rows in one task.
            wanted: names of outputs.
            named: columns by the input they are for.

        Raises:
            BatchFileError: if the model cannot do it.
        """
        if batch_size > 1 and batch_size > self.max_batch_size:
            limit = self.max_batch_size or 1
            raise BatchFileError(
                f"batch_size = {batch_size}: the model takes at most {limit} "
                f"{'row' if limit == 1 else 'rows'} in one request "
                f"(max_batch_size = {self.max_batch_size} in its config.pbtxt)"
            )
        for name in wanted:
            if name not in self.outputs:
                raise BatchFileError(
                    f"the model has no output {name!r}; it has {_listed(self.outputs)}"
                )
        for name in named:
            if name not in self.inputs:
                raise BatchFileError(
                    f"the model has no input {name!r}; it has {_listed(self.inputs)}"
                )


def schema_of(config: Any) -> ModelSchema:
    """The schema in a model's configuration, an inference.ModelConfig."""
    inputs = {tensor.name: _spec(tensor) for tensor in config.input}
    outputs = {tensor.name: _spec(tensor) for tensor in config.output}
    # ITEM and RESULT as forebay/functions writes them; the parameter says it for sure.
    said = config.parameters[FUNCTION_PARAMETER].string_value if _says(config) else ""
    looks = [*inputs, *outputs] == [_FUNCTION_INPUT, _FUNCTION_OUTPUT] and all(
        spec.datatype == BYTES for spec in (*inputs.values(), *outputs.values())
    )
    return ModelSchema(inputs, outputs, config.max_batch_size, said == "1" or looks)


def _says(config: Any) -> bool:
    return FUNCTION_PARAMETER in config.parameters


def _spec(tensor: Any) -> TensorSpec:
    # By number, as model_config.proto has them: TYPE_BOOL is 1.
    known = [*NUMPY_TYPES, BYTES, BF16]
    number = int(tensor.data_type)
    datatype = known[number - 1] if 1 <= number <= len(known) else BYTES
    return TensorSpec(
        tensor.name, datatype, tuple(tensor.dims), bool(getattr(tensor, "optional", False))
    )


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(str, specs.values()))
