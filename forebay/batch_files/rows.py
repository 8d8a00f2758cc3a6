"""Pure: rows of a file as inputs of a model, and its answers as rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from forebay.batch_files import row_tensors
from forebay.batch_files.errors import RowError
from forebay.batch_files.schema import ModelSchema
from forebay.functions import calls
from forebay.inference import InferResult

ALL = "*"
VALUE = "value"
"""Column of an answer that is no object, where it stands beside kept columns."""


@dataclass(slots=True)
class Row:
    """A row of the input.

    Attributes:
        number: its line, or its row in a Parquet file, from 1.
        text: the line as it was read; None if the row has none.
        value: what it says; None if that is not known yet.
        fault: why it cannot be read at all; empty if it can.
    """

    number: int
    text: bytes | None = None
    value: Any = None
    fault: str = ""

    def parse(self) -> Any:
        """What the row says.

        Raises:
            RowError: if it is malformed.
        """
        if self.fault:
            raise RowError(self.fault)
        if self.text is not None and self.value is None:
            try:
                self.value = json.loads(self.text)
            except json.JSONDecodeError as error:
                # Without its "line 2", which a row's own end would be.
                place = f"at character {error.pos + 1} of the line"
                raise RowError(f"not JSON: {error.msg} {place}") from None
            except (ValueError, RecursionError) as error:
                raise RowError(f"not JSON: {error}") from None
        return self.value

    def as_it_was(self) -> Any:
        """The row for the file of errors: what it says or, if it is malformed, its text."""
        if self.value is not None:
            return row_tensors.plain(self.value)
        return None if self.text is None else self.text.decode(errors="replace").rstrip("\r\n")


class RowCodec:
    """Makes inputs of rows and rows of results, for one model."""

    def __init__(
        self, schema: ModelSchema, columns: Mapping[str, str], kept: Sequence[str] = ()
    ) -> None:
        """Prepares it.

        Args:
            schema: of the model.
            columns: column by the input it is for, where they differ in name. An input with an
                empty column takes the row itself.
            kept: columns of the input row that go into the answer; `*` means all.
        """
        self._schema = schema
        self._columns = columns
        self._kept = kept

    def inputs_of(self, row: Row) -> Mapping[str, NDArray[Any]]:
        """The inputs of one row.

        Raises:
            RowError: if the row is malformed or does not fit the model.
            InvalidRequestError: if a function's argument cannot be sent.
        """
        value = row.parse()
        if self._schema.is_function:
            return calls.inputs_of((value,), {})
        is_batched = self._schema.max_batch_size > 0
        inputs: dict[str, NDArray[Any]] = {}
        for name, spec in self._schema.inputs.items():
            column = self._columns.get(name, name)
            if column == "":
                given = value
            elif isinstance(value, dict):
                given = value.get(column)
            else:
                raise RowError(
                    f"the row is {_kind(value)}; it must be an object with the columns "
                    f"{', '.join(self._schema.inputs)}, or name the one input it is for with "
                    "--input NAME"
                )
            if given is not None:
                inputs[name] = row_tensors.tensor_of(given, spec, is_batched)
            elif not spec.optional:
                raise RowError(f"the column {column!r}, for the input {spec}, is missing")
        if not inputs:
            raise RowError(f"the row has none of the columns {', '.join(self._schema.inputs)}")
        return inputs

    def answer_of(self, row: Row, result: InferResult) -> Any:
        """The row of the output for one row of the input.

        Raises:
            ForebayError: if a function raised for this row.
        """
        kept = self._kept_of(row)
        if self._schema.is_function:
            answer = calls.value_of(result)
            if isinstance(answer, dict):
                return {**kept, **answer}
            return {**kept, VALUE: answer} if self._kept else answer
        is_batched = self._schema.max_batch_size > 0
        for name, array in result.outputs.items():
            spec = self._schema.outputs.get(name)
            kept[name] = row_tensors.value_of(array, spec.dims if spec else None, is_batched)
        return kept

    def _kept_of(self, row: Row) -> dict[str, Any]:
        if not self._kept or not isinstance(row.value, dict):
            return {}
        if ALL in self._kept:
            return dict(row.value)
        return {name: row.value.get(name) for name in self._kept}


def line_of(answer: Any) -> bytes:
    """An answer as a line of JSON.

    Raises:
        RowError: if JSON has no form for it.
    """
    return json.dumps(row_tensors.plain(answer), ensure_ascii=False).encode() + b"\n"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
