"""The API: stubs are fresh, protos are clean, every outcome has its place."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_UNSPECIFIED, Outcome
from services.wire import outcomes
from tests.contract.tree import GENERATED, ROOT

BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")


def test_stubs_are_fresh(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "make_stubs.sh"
    subprocess.run([script, sys.executable, tmp_path], check=True)
    made = {file.name: file.read_text() for file in (tmp_path / "forebay" / "v1").iterdir()}
    kept = {
        file.name: file.read_text()
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
        for file in GENERATED.glob(pattern)
    }
    stale = {name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name)}
    assert not stale, "run `make stubs`"


@pytest.mark.parametrize("arguments", [["lint"], ["format", "--diff", "--exit-code"]])
def test_protos_are_clean(arguments: list[str]) -> None:
    """STANDARD and COMMENTS without exception: every message, field and value is documented."""
    assert BUF is not None, "buf is missing: install the extra `dev`"
    done = subprocess.run([BUF, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_makes_no_exception() -> None:
    configuration = (ROOT / "buf.yaml").read_text()
    assert "use: [STANDARD, COMMENTS]" in configuration
    assert "ignore" not in configuration
    assert "except" not in configuration
    protos = "".join(file.read_text() for file in (ROOT / "protos").rglob("*.proto"))
    assert "buf:lint:ignore" not in protos


def test_every_outcome_has_one_status_and_one_label() -> None:
    every = set(Outcome.values()) - {OUTCOME_UNSPECIFIED}
    assert set(outcomes.STATUS) == every
    assert set(outcomes.LABELS) == every
    assert len(set(outcomes.STATUS.values())) == len(every)
    assert len(set(outcomes.LABELS.values())) == len(every)
