"""Rows to tensors and back; files, checkpoints and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2

from forebay.batch_files import checkpoint as checkpoints
from forebay.batch_files import row_tensors
from forebay.batch_files.checkpoint import Checkpoint, Job
from forebay.batch_files.errors import BatchFileError, RowError
from forebay.batch_files.rows import Row, RowCodec, line_of
from forebay.batch_files.schema import ModelSchema, TensorSpec, schema_of
from forebay.batch_files.sinks import Lines, ParquetParts
from forebay.batch_files.sources import JsonLines, ParquetRows, source_of
from forebay.inference import InferResult

JOB = Job("d", "in.jsonl", 10, "abc", 3, 1)
TEXT = TensorSpec("T", "BYTES", (1,))
NUMBERS = TensorSpec("N", "FP32", (-1,))
BATCHED = ModelSchema({"T": TEXT, "N": replace(NUMBERS, optional=True)}, {"T": TEXT}, 8)


def result(**outputs: Any) -> InferResult:
    return InferResult(
        {name: np.asarray(value) for name, value in outputs.items()}, "1", "t", None, 0, True
    )


@pytest.mark.parametrize(
    ("value", "datatype", "dims", "wanted"),
    [
        (3, "INT32", (1,), [[3]]),
        ([1, 2], "FP32", (-1,), [[1.0, 2.0]]),
        ([[1, 2], [3, 4]], "UINT8", (2, 2), [[[1, 2], [3, 4]]]),
        (True, "BOOL", (1,), [[True]]),
        ("ä", "BYTES", (1,), [["ä".encode()]]),
        (["a", "b"], "BYTES", (2,), [[b"a", b"b"]]),
        ({"base64": "/w=="}, "BYTES", (1,), [[b"\xff"]]),
        ([], "FP32", (-1,), [[]]),
    ],
)
def test_a_value_becomes_the_input_with_a_batch_axis(
    value: Any, datatype: str, dims: tuple[int, ...], wanted: Any
) -> None:
    array = row_tensors.tensor_of(value, TensorSpec("X", datatype, dims), is_batched=True)
    assert array.tolist() == wanted
    alone = row_tensors.tensor_of(value, TensorSpec("X", datatype, dims), is_batched=False)
    assert alone.tolist() == wanted[0]


@pytest.mark.parametrize(
    ("value", "datatype", "dims", "said"),
    [
        ("3", "FP32", (1,), "'3' is not FP32: it must be numbers"),
        (1.5, "INT32", (1,), "no whole number"),
        (300, "UINT8", (1,), "300 is not UINT8"),
        ([1, [2]], "FP32", (-1,), "is not FP32"),
        (1, "BOOL", (1,), "true and false are BOOL"),
        (True, "INT8", (1,), "true and false are BOOL"),
        (7, "BYTES", (1,), "it must be text"),
        ({"base64": "?"}, "BYTES", (1,), "base64"),
        ([1, 2, 3], "FP32", (2,), r"shape \[3\]; a row has \[2\]"),
        (1, "FP32", (2,), r"shape \[\]"),
        (1, "BF16", (1,), "BF16 has no form"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_words(
    value: Any, datatype: str, dims: tuple[int, ...], said: str
) -> None:
    with pytest.raises(RowError, match=f"input X: .*{said}"):
        row_tensors.tensor_of(value, TensorSpec("X", datatype, dims), is_batched=False)


def test_an_answer_is_one_element_where_the_model_declares_one() -> None:
    assert row_tensors.value_of(np.array([[b"png"]], dtype=object), (1,), True) == b"png"
    assert row_tensors.value_of(np.array([[0.5]], np.float32), (1,), True) == 0.5
    assert row_tensors.value_of(np.array([[1, 2]]), (-1,), True) == [1, 2]
    assert row_tensors.value_of(np.array([1]), (-1,), False) == [1]
    assert row_tensors.value_of(np.array([[1]]), None, True) == [1]


def test_an_answer_is_written_with_what_json_has() -> None:
    line = line_of({"a": b"text", "b": b"\xff", "c": float("nan"), "d": np.arange(2), "e": (1,)})
    assert json.loads(line) == {
        "a": "text",
        "b": {"base64": "/w=="},
        "c": None,
        "d": [0, 1],
        "e": [1],
    }
    assert line.endswith(b"\n")
    with pytest.raises(RowError, match="set cannot be written as JSON"):
        line_of({1, 2})


def test_rows_name_the_column_that_is_missing_or_malformed() -> None:
    codec = RowCodec(BATCHED, {})
    inputs = codec.inputs_of(Row(1, text=b'{"T": "a", "N": [1], "other": 3}'))
    assert {name: array.tolist() for name, array in inputs.items()} == {"T": [[b"a"]], "N": [[1.0]]}
    assert list(codec.inputs_of(Row(1, text=b'{"T": "a", "N": null}'))) == ["T"]
    for text, said in {
        b"{": "not JSON: Expecting property name .* at character 2 of the line",
        b"[" * 100_000: "not JSON",
        b"[1]": "the row is a list; it must be an object with the columns T, N",
        b"null": "the row is null",
        b"{}": r"the column 'T', for the input T \(BYTES \[1\]\), is missing",
        b"\xff\xfe": "not JSON",
    }.items():
        with pytest.raises(RowError, match=said):
            codec.inputs_of(Row(1, text=text))
    with pytest.raises(RowError, match="too long"):
        codec.inputs_of(Row(1, text=b"{", fault="the line is too long"))


def test_a_column_or_the_row_itself_can_be_the_input() -> None:
    renamed = RowCodec(BATCHED, {"T": "text"}).inputs_of(Row(1, text=b'{"text": "a"}'))
    assert renamed["T"].tolist() == [[b"a"]]
    whole = RowCodec(ModelSchema({"T": TEXT}, {}, 8), {"T": ""}).inputs_of(Row(1, text=b'"a"'))
    assert whole["T"].tolist() == [[b"a"]]


def test_kept_columns_stand_before_the_answer() -> None:
    row = Row(1, text=b'{"id": 7, "T": "a", "more": 1}')
    row.parse()
    answer = result(T=np.array([[b"x"]], dtype=object))
    assert RowCodec(BATCHED, {}).answer_of(row, answer) == {"T": b"x"}
    assert RowCodec(BATCHED, {}, ["id", "none"]).answer_of(row, answer) == {
        "id": 7,
        "none": None,
        "T": b"x",
    }
    assert RowCodec(BATCHED, {}, ["*"]).answer_of(row, answer) == {"id": 7, "T": b"x", "more": 1}


def test_a_models_configuration_says_what_rows_need() -> None:
    config = model_config_pb2.ModelConfig(max_batch_size=4)
    config.input.add(name="A", data_type=model_config_pb2.TYPE_STRING, dims=[1])
    config.input.add(name="B", data_type=model_config_pb2.TYPE_FP16, dims=[-1, 2], optional=True)
    config.output.add(name="C", data_type=model_config_pb2.TYPE_BOOL, dims=[1])
    schema = schema_of(config)
    assert schema.inputs["A"] == TensorSpec("A", "BYTES", (1,))
    assert schema.inputs["B"] == TensorSpec("B", "FP16", (-1, 2), optional=True)
    assert schema.outputs["C"].datatype == "BOOL"
    assert not schema.is_function
    schema.check(4, ["C"], {"A": "a"})
    for arguments, said in (
        ((5, (), {}), "at most 4 rows"),
        ((1, ("D",), {}), r"no output 'D'; it has C \(BOOL \[1\]\)"),
        ((1, (), {"Z": ""}), "no input 'Z'"),
    ):
        with pytest.raises(BatchFileError, match=said):
            schema.check(*arguments)


def test_a_function_is_known_by_its_inputs_and_outputs_or_by_a_parameter() -> None:
    config = model_config_pb2.ModelConfig(max_batch_size=4)
    config.input.add(name="ITEM", data_type=model_config_pb2.TYPE_STRING, dims=[1])
    config.output.add(name="RESULT", data_type=model_config_pb2.TYPE_STRING, dims=[1])
    assert schema_of(config).is_function
    config.input.add(name="MORE", data_type=model_config_pb2.TYPE_STRING, dims=[1])
    assert not schema_of(config).is_function
    config.parameters["forebay_function"].string_value = "1"
    assert schema_of(config).is_function


def test_lines_are_counted_as_rows_but_for_empty_ones(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'{"a": 1}\n\n  \r\n[2]\n"last"')
    source = JsonLines(file)
    assert source.identity().row_count == 3
    assert source.identity().size_bytes == len(file.read_bytes())
    rows = list(source.rows(0))
    assert [row.number for row in rows] == [1, 4, 5]
    assert [row.parse() for row in rows] == [{"a": 1}, [2], "last"]
    assert [row.number for row in source.rows(2)] == [5]
    file.write_bytes(b"\n\n")
    assert source.identity().row_count == 0
    assert list(source.rows(0)) == []


def test_another_content_of_the_same_size_is_another_file(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"a": 1}\n')
    before = JsonLines(file).identity()
    file.write_text('{"a": 2}\n')
    assert JsonLines(file).identity() != before


def test_files_are_told_by_the_end_of_their_name(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n")
    with pytest.raises(BatchFileError, match=r"must end in \.jsonl, \.ndjson or \.parquet"):
        source_of(tmp_path / "in.csv")
    with pytest.raises(BatchFileError, match="there is no file"):
        source_of(tmp_path / "none.jsonl")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    sink = Lines(tmp_path / "out.jsonl")
    yield sink
    sink.close()


def test_what_was_written_behind_the_checkpoint_is_cut_off(tmp_path: Path, lines: Lines) -> None:
    lines.open(0)
    lines.write({"a": 1})
    mark = lines.flush()
    lines.write({"a": 2})
    lines.close()
    with (tmp_path / "out.jsonl.partial").open("ab") as file:
        file.write(b'{"a": 3')
    lines.open(mark)
    lines.write({"a": 4})
    lines.flush()
    lines.publish()
    assert (tmp_path / "out.jsonl").read_text() == '{"a": 1}\n{"a": 4}\n'
    assert not (tmp_path / "out.jsonl.partial").exists()
    lines.publish()


def test_two_runs_do_not_write_to_one_file(tmp_path: Path, lines: Lines) -> None:
    lines.open(0)
    with pytest.raises(BatchFileError, match="another run writes to"):
        Lines(tmp_path / "out.jsonl").open(0)


def test_a_file_shorter_than_its_checkpoint_is_not_gone_on_with(lines: Lines) -> None:
    with pytest.raises(BatchFileError, match="has 0 bytes where 5 were written"):
        lines.open(5)


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    path = checkpoints.path_for(tmp_path / "out.jsonl")
    assert checkpoints.load(path) is None
    saved = Checkpoint(JOB, "b", done=2, failed=1, answers=20, errors_bytes=7)
    checkpoints.save(path, saved)
    checkpoints.save(path, saved)
    assert checkpoints.load(path) == saved
    for text in ("{", '{"version": 2}', '{"version": 1}', "[]"):
        path.write_text(text)
        with pytest.raises(BatchFileError, match="Begin again with --force"):
            checkpoints.load(path)


def test_only_the_same_job_is_gone_on_with() -> None:
    begun = Checkpoint(JOB, "b")
    checkpoints.check_same(begun, replace(JOB, source="moved.jsonl"))
    with pytest.raises(BatchFileError, match="is not the file that this run was begun with"):
        checkpoints.check_same(begun, replace(JOB, digest="def"))
    with pytest.raises(BatchFileError, match="begun with batch_size = 1, not 2"):
        checkpoints.check_same(begun, replace(JOB, batch_size=2))


def test_parquet_goes_in_and_comes_out_in_parts(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "out.parquet"
    sink = ParquetParts(target)
    sink.open(0)
    sink.write({"a": 1, "b": None})
    mark = sink.flush()
    sink.write({"a": 9})
    sink.flush()
    sink.close()
    sink.open(mark)
    sink.write({"a": 2.5, "b": "x"})
    sink.flush()
    sink.publish()
    assert parquet.read_table(target).to_pylist() == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    source = ParquetRows(target)
    assert source.identity().row_count == 2
    assert [(row.number, row.parse()) for row in source.rows(1)] == [(2, {"a": 2.5, "b": "x"})]


def test_parquet_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = ParquetParts(tmp_path / "out.parquet")
    sink.open(0)
    sink.flush()
    sink.publish()
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0
