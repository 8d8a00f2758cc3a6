"""What a command line gives a function, and what it prints of what came back."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from forebay.cli import function_inputs
from forebay.cli.failure import CliError
from forebay.functions.errors import FunctionError
from forebay.functions.runner import codec
from forebay.inference import InferResult


def model(given: str, taken: str, datatype: str = "BYTES") -> Any:
    return SimpleNamespace(
        inputs=[SimpleNamespace(name=given, datatype=datatype)],
        outputs=[SimpleNamespace(name=taken, datatype=datatype)],
    )


def call_of(inputs: dict[str, Any]) -> Any:
    return codec.decode(inputs["ITEM"].ravel()[0])


def test_functions_are_told_from_other_models() -> None:
    assert function_inputs.is_function(model("ITEM", "RESULT"))
    assert not function_inputs.is_function(model("CONTENT", "RESULT"))
    assert not function_inputs.is_function(model("ITEM", "RESULT", "FP32"))


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ([], [[], {}]),
        (["ITEM=21"], [[21], {}]),
        (['ITEM={"a": [1, null]}'], [[{"a": [1, None]}], {}]),
        (["ITEM=some=text"], [["some=text"], {}]),
    ],
)
def test_an_argument_is_json_or_else_text(given: list[str], call: Any) -> None:
    assert call_of(function_inputs.of_words(given)) == call


def test_an_argument_is_the_bytes_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\xff{}")
    assert call_of(function_inputs.of_file(file)) == [[b"\xff{}"], {}]
    assert call_of(function_inputs.of_words([f"ITEM=@{file}"])) == [[b"\xff{}"], {}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["X=1"], "--input 'X=1': a function has one input: write ITEM=VALUE"),
        (["ITEM"], "write ITEM=VALUE"),
        (["ITEM=1", "ITEM=2"], "a function has one input"),
        ([f"ITEM={2**64}"], "--input ITEM: an argument: an int of more than 64 bits"),
        (["ITEM=@/there/is/none"], "cannot read /there/is/none: No such file"),
    ],
)
def test_what_is_no_argument_says_what_is(given: list[str], said: str) -> None:
    with pytest.raises(CliError) as raised:
        function_inputs.of_words(given)
    assert said in str(raised.value)


def result(**outputs: bytes) -> InferResult:
    arrays = {name: np.array([[value]], object) for name, value in outputs.items()}
    return InferResult(arrays, "1", "r", None, 0, True)


def test_what_a_function_returned_is_shown_as_json() -> None:
    returned = codec.encode({"ok": {"raw": b"\xff", "n": np.float32(0.5)}})
    assert function_inputs.returned(result(RESULT=returned)) == {
        "value": {"raw": {"base64": "/w=="}, "n": 0.5}
    }
    assert function_inputs.returned(result(OTHER=returned)) is None
    with pytest.raises(FunctionError, match="ValueError: bad"):
        function_inputs.returned(
            result(RESULT=codec.encode({"error": {"type": "ValueError", "message": "bad"}}))
        )
