"""`forebay batch run` on a whole mesh with a real Triton."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.forebay_up import ROOT, START_TIMEOUT_S, ForebayUp

MODEL = """\
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

LIMIT = Path("{limit}")

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().ravel().tolist()
        if b"raise" in texts:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("told to raise"))
        # No row from the limit on is answered before the limit has gone.
        while any(text >= limit() for text in map(number, texts)):
            time.sleep(0.01)
        length = np.array([[len(text)] for text in texts], np.int32)
        upper = np.array([[text.upper()] for text in texts], object)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("LENGTH", length), pb_utils.Tensor("UPPER", upper)]
        )

def limit():
    try:
        return int(LIMIT.read_text())
    except FileNotFoundError:
        return 10**9

def number(text):
    return int(text.split()[1]) if text.startswith(b"row ") else 0
"""
CONFIG = """\
backend: "python"
max_batch_size: 16
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "LENGTH" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "UPPER" data_type: TYPE_STRING dims: [ 1 ] }
]
"""
ROWS = 4000
IN_FLIGHT = 64
MAX_BATCH_SIZE = 16


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("batch-files")
    (directory / "model" / "1").mkdir(parents=True)
    (directory / "model" / "1" / "model.py").write_text(
        MODEL.replace("{limit}", str(directory / "limit"))
    )
    (directory / "model" / "config.pbtxt").write_text(CONFIG)
    file = directory / "deployment.yaml"
    keys = {"name": "upper", "model": "model", "canary": "off", "max_ongoing_requests": 16}
    file.write_text(json.dumps(keys))
    shared = directory / "shared"
    shared.mkdir()
    with ForebayUp(directory / "state", "--volume", f"shared={shared}") as up:
        up.forebay("deploy", file).ok()
        yield up


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "TEXT": f"row {i}"} for i in range(count)]


def answers(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "LENGTH": len(f"row {i}"), "UPPER": f"ROW {i}"} for i in range(count)]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_answers_come_in_the_order_of_rows(
    mesh: ForebayUp, tmp_path: Path, batch_size: int
) -> None:
    source, target = write(tmp_path / "in.jsonl", texts(500)), tmp_path / "out.jsonl"
    ran = mesh.forebay(
        *("batch", "run", "upper", source, "-o", target, "--keep", "id"),
        *("--batch-size", str(batch_size), "--format", "json"),
    )
    summary = ran.json()
    assert read(target) == answers(500)
    assert (summary["rows"], summary["succeeded"], summary["failed"]) == (500, 500, 0)
    assert summary["rows_per_s"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_rows_that_fail_are_in_a_file_of_their_own(mesh: ForebayUp, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps(row) for row in texts(12)]
    lines[1:6] = ["{", "", json.dumps({"id": 3}), json.dumps({"TEXT": 7}), '{"TEXT": "raise"}']
    source.write_text("\n".join(lines))
    ran = mesh.forebay(
        *("batch", "run", "upper", source, "-o", target, "--keep", "id", "--max-retries", "0")
    )
    assert (ran.code, "4 of 11 rows failed" in ran.err) == (1, True)
    good = answers(12)
    assert read(target) == [good[0], *good[6:]]
    errors = read(tmp_path / "out.errors.jsonl")
    assert [error["line"] for error in errors] == [2, 4, 5, 6]
    assert [error["row"] for error in errors] == [
        "{",
        {"id": 3},
        {"TEXT": 7},
        {"TEXT": "raise"},
    ]
    said = [error["error"] for error in errors]
    assert "not JSON" in said[0]
    assert "'TEXT'" in said[1]
    assert "missing" in said[1]
    assert "it must be text" in said[2]
    assert "told to raise" in said[3]
    assert errors[3]["task"].startswith("deployments/upper/tasks/")


def test_what_is_there_is_not_written_over(mesh: ForebayUp, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", texts(5)), tmp_path / "out.jsonl"
    target.write_text("precious\n")
    refused = mesh.forebay("batch", "run", "upper", source, "-o", target)
    assert (refused.code, "--force" in refused.err) == (2, True)
    assert target.read_text() == "precious\n"
    mesh.forebay("batch", "run", "upper", source, "-o", target, "--force").ok()
    assert len(read(target)) == 5


def test_what_cannot_be_run_is_said_before_anything_is_written(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    source, target = write(tmp_path / "in.jsonl", texts(5)), tmp_path / "out.jsonl"
    for words, said in (
        (("upper", source, "-o", target, "--batch-size", "17"), "at most 16 rows"),
        (("upper", source, "-o", target, "--only", "NONE"), "no output 'NONE'"),
        (("upper", source, "-o", target, "-i", "NONE"), "no input 'NONE'"),
        (("upper", source, "-o", source), "three different files"),
        (("upper", tmp_path / "none.jsonl", "-o", target), "there is no file"),
        (("upper", source, "-o", tmp_path / "out.csv"), r".parquet"),
        (("upper", source, "-o", tmp_path / "no" / "out.jsonl"), "there is no folder"),
        (("upper", "volume://none/in.jsonl", "-o", target), "none"),
        (("nowhere", source, "-o", target), "nowhere"),
    ):
        ran = mesh.forebay("batch", "run", *words)
        assert ran.code in (2, 3), ran.err
        assert said in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_rows_of_bare_values_and_only_one_output(mesh: ForebayUp, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.ndjson", ["a", "bc"]), tmp_path / "out.jsonl"
    mesh.forebay(
        *("batch", "run", "upper", source, "-o", target, "-i", "TEXT", "--only", "LENGTH")
    ).ok()
    assert read(target) == [{"LENGTH": 1}, {"LENGTH": 2}]


def test_files_may_be_in_a_volume(mesh: ForebayUp) -> None:
    shared = mesh.state_dir.parent / "shared"
    write(shared / "in.jsonl", texts(3))
    mesh.forebay(
        "batch", "run", "upper", "volume://shared/in.jsonl", "-o", "volume://shared/out.jsonl"
    ).ok()
    assert [row["UPPER"] for row in read(shared / "out.jsonl")] == ["ROW 0", "ROW 1", "ROW 2"]


def test_parquet_goes_through_as_rows_do(mesh: ForebayUp, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(texts(300)), source)
    mesh.forebay(
        *("batch", "run", "upper", source, "-o", target, "--keep", "id", "--batch-size", "16")
    ).ok()
    assert parquet.read_table(target).to_pylist() == answers(300)


FUNCTION = """\
import forebay

@forebay.function
def shout(row):
    if row["id"] == 2:
        raise forebay.PermanentError("not two")
    return {"said": row["text"].upper()}
"""


def test_a_functions_rows_are_its_arguments(mesh: ForebayUp, tmp_path: Path) -> None:
    (tmp_path / "shouting.py").write_text(FUNCTION)
    mesh.forebay("deploy", f"{tmp_path / 'shouting.py'}:shout").ok()
    rows = [{"id": i, "text": f"row {i}"} for i in range(5)]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    ran = mesh.forebay("batch", "run", "shout", source, "-o", target, "--keep", "id")
    assert (ran.code, "1 of 5 rows failed" in ran.err) == (1, True)
    assert read(target) == [{"id": i, "said": f"ROW {i}"} for i in (0, 1, 3, 4)]
    (error,) = read(tmp_path / "out.errors.jsonl")
    assert (error["line"], "not two" in error["error"]) == (3, True)


def killed_at(mesh: ForebayUp, rows: int, words: tuple[str | Path, ...], partial: Path) -> None:
    """Runs a command and kills it when it has written so many rows.

    However late it is killed, there are rows left: the model holds back those that it need not
    have answered by then, which are all but the ones in flight.
    """
    limit = mesh.state_dir.parent / "limit"
    whole = limit.with_suffix(".new")
    whole.write_text(str(rows + IN_FLIGHT * MAX_BATCH_SIZE))
    whole.replace(limit)
    state = ("--state-dir", str(mesh.state_dir))
    process = subprocess.Popen(
        [sys.executable, "-m", "forebay.cli.main", *map(str, words), *state],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while not partial.exists() or partial.read_bytes().count(b"\n") < rows:
            assert process.poll() is None, "it was over before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_killed_run_goes_on_where_it_was(
    mesh: ForebayUp, tmp_path: Path, batch_size: int
) -> None:
    rows: list[Any] = texts(ROWS)
    rows[3] = {"id": 3}
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    words: tuple[str | Path, ...] = ("batch", "run", "upper", source, "-o", target, "--keep", "id")
    words += ("--batch-size", str(batch_size), "--max-in-flight", str(IN_FLIGHT))
    for part in (ROWS // 10, ROWS // 5, ROWS // 3):
        killed_at(mesh, part, (*words, "--resume"), tmp_path / "out.jsonl.partial")
    (mesh.state_dir.parent / "limit").unlink()
    assert not target.exists()
    refused = mesh.forebay(*words)
    assert (refused.code, "--resume" in refused.err) == (2, True)
    source.write_text(source.read_text().replace("row 99", "row 98"))
    other = mesh.forebay(*words, "--resume")
    assert (other.code, "not the file that this run was begun with" in other.err) == (2, True)
    write(source, rows)
    ran = mesh.forebay(*words, "--resume", "--format", "json")
    assert ran.code == 1
    summary = json.loads(ran.out)
    assert (summary["rows"], summary["failed"]) == (ROWS, 1)
    good = answers(ROWS)
    assert read(target) == good[:3] + good[4:]
    assert [error["line"] for error in read(tmp_path / "out.errors.jsonl")] == [4]
    listed = mesh.forebay(
        *("tasks", "list", "upper", "--batch", summary["batch"], "-n", "100000", "-o", "json")
    ).json()
    # Each position is one task: none was submitted twice.
    assert len({task["batch_index"] for task in listed}) == len(listed)
    assert len(list(tmp_path.iterdir())) == 3
