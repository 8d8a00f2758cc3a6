"""What a function is called with from a command line, and what it returned.

Functions take msgpack: a file's bytes as they are, or JSON as it is written, are none.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forebay.cli.failure import USAGE, CliError
from forebay.errors import InvalidRequestError
from forebay.functions import calls
from forebay.inference import InferResult
from forebay.tensors import BYTES


def is_function(metadata: Any) -> bool:
    """Whether a model is a Python function of Forebay's, by what the router says of it."""
    return _one(metadata.inputs, calls.ITEM) and _one(metadata.outputs, calls.RESULT)


def of_file(file: Path) -> dict[str, Any]:
    """The inputs of a call whose argument is a file's content, as bytes.

    Raises:
        CliError: if it cannot be read.
    """
    return calls.inputs_of((_content(file),), {})


def of_words(given: Sequence[str]) -> dict[str, Any]:
    """The inputs of a call whose argument is given as ITEM=VALUE; without a word, of one without.

    VALUE is JSON, the bytes of a file as `@path`, or else text.

    Raises:
        CliError: if it is something else.
    """
    if not given:
        return calls.inputs_of((), {})
    name, separator, value = given[0].partition("=")
    if len(given) > 1 or not separator or name != calls.ITEM:
        raise CliError(
            f"--input {given[-1]!r}: a function has one input: write {calls.ITEM}=VALUE, where "
            "VALUE is its argument as JSON, the bytes of a file as @path, or else text",
            USAGE,
        )
    try:
        return calls.inputs_of((item(value),), {})
    except InvalidRequestError as error:
        raise CliError(f"--input {calls.ITEM}: {error}", USAGE) from None


def item(value: str) -> Any:
    """An argument as an item: the bytes of a file after `@`, JSON, or else text.

    Raises:
        CliError: if a file cannot be read.
    """
    if value.startswith("@"):
        return _content(Path(value[1:]))
    try:
        return json.loads(value)
    except ValueError:
        return value


def returned(result: InferResult) -> dict[str, Any] | None:
    """What a function returned, as JSON's types; None if the result is of something else.

    Raises:
        ForebayError: if the result is of a function that raised, or says nothing.
    """
    from forebay.batch_files.row_tensors import plain

    if list(result.outputs) != [calls.RESULT]:
        return None
    return {"value": plain(calls.value_of(result))}


def _one(tensors: Sequence[Any], name: str) -> bool:
    return [(tensor.name, tensor.datatype) for tensor in tensors] == [(name, BYTES)]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", USAGE) from error
