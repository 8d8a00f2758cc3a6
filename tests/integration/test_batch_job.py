"""The example of a batch job, as its README says to run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forebay_up import ROOT, ForebayUp

ROWS = 500


@pytest.mark.timeout(600)
def test_the_batch_job_labels_every_row_in_order(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with ForebayUp(tmp_path / "state", "--slots", "2") as mesh:
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "forebay.cli.main", "run"),
                *(str(ROOT / "examples" / "batch-job" / "classify.py"), str(ROWS)),
            ],
            cwd=work,
            env={
                **os.environ,
                "FOREBAY_STATE_DIR": str(mesh.state_dir),
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"{ROWS} rows in" in ran.stdout
        # It was not there before, so it goes with the script.
        assert json.loads(mesh.forebay("list", "-o", "json").ok().out) == []
    rows = [json.loads(line) for line in lines(work / f"rows-{ROWS}.jsonl")]
    labels = [json.loads(line)["label"] for line in lines(work / "labels.jsonl")]
    assert len(labels) == len(rows) == ROWS
    empty = [index for index, row in enumerate(rows) if not row["text"]]
    assert {labels[index] for index in empty} <= {"empty"}
    assert labels.count("python") > ROWS // 2


def lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]
