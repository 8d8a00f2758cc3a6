"""Volumes on a real mesh: a model reads and writes them, and goes only where they are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay import volumes
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp, Ran

# Notes what it was asked in one volume, and answers with what another holds.
_MODEL = """\
import os
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

DATA, WEIGHTS = (Path(os.environ[f"FOREBAY_VOLUME_{name}"]) for name in ("DATA", "WEIGHTS"))

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        word = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0].decode()
        with (DATA / "asked").open("a") as notes:
            notes.write(f"{word} of {os.getppid()}\\n")
        said = "|".join([
            (WEIGHTS / "weights.txt").read_text(),
            Path("volumes/weights/weights.txt").read_text(),
            os.environ["FOREBAY_VOLUME_WEIGHTS_READ_ONLY"],
            os.environ.get("FOREBAY_VOLUME_DATA_READ_ONLY", "may be written"),
        ])
        out = pb_utils.Tensor("OUT", np.array([said.encode()], object))
        return pb_utils.InferenceResponse([out])
"""
_CONFIG = """\
backend: "python"
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "weights.txt").write_text("heavy")
    return folder


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[ForebayUp]:
    flags = ("--nodes", "2", "--volume", "data", "--volume", f"weights={weights}:ro")
    with ForebayUp(tmp_path_factory.mktemp("volumes") / "state", *flags) as up:
        yield up


def write_deployment(directory: Path, name: str, **keys: object) -> Path:
    (directory / "model" / "1").mkdir(parents=True, exist_ok=True)
    (directory / "model" / "1" / "model.py").write_text(_MODEL)
    (directory / "model" / "config.pbtxt").write_text(_CONFIG)
    file = directory / "deployment.yaml"
    file.write_text(json.dumps({"name": name, "model": "model", "canary": "off", **keys}))
    return file


async def test_replicas_of_all_nodes_read_and_write_the_same_volumes(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    mounts = ["data", {"weights": {"read_only": True}}]
    file = write_deployment(tmp_path, "notes", volumes=mounts, replicas=2, placement="spread")
    mesh.forebay("deploy", file).ok()
    asked = mesh.state_dir / "volumes" / "data" / "asked"

    def ask(word: str) -> Ran:
        return mesh.forebay("infer", "notes", "-i", f'IN=["{word}"]', "-o", "json")

    def writers() -> set[str]:
        ask("again").ok()
        return {line.split()[-1] for line in asked.read_text().splitlines()}

    # What a model takes and gives is known shortly after its first replica is ready.
    await eventually(lambda: ask("word").code == 0, timeout_s=90)
    assert "heavy|heavy|1|may be written" in ask("word").ok().out
    assert asked.read_text().startswith("word of ")
    await eventually(lambda: len(writers()) == 2, timeout_s=90)
    assert volumes.resolve("volume://data/asked", mesh.state_dir) == asked

    assert "unchanged" in mesh.forebay("deploy", file).ok().err
    write_deployment(tmp_path, "notes", volumes=["data"], replicas=2, placement="spread")
    updated = mesh.forebay("deploy", file, "--no-wait", "-o", "json").json()
    assert (updated["change"], updated["generation"]) == ("updated", 2)
    mesh.forebay("delete", "notes").ok()


async def test_a_replica_finds_no_place_where_its_volume_is_not_and_says_so(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    file = write_deployment(tmp_path, "nowhere", volumes=["elsewhere"])
    mesh.forebay("deploy", file, "--no-wait").ok()
    wrong = write_deployment(tmp_path, "writer", volumes=["weights"])
    mesh.forebay("deploy", wrong, "--no-wait").ok()

    def message(name: str) -> str:
        status = mesh.forebay("status", name, "-o", "json").json()
        return json.dumps(status)

    missing = "needs the volume elsewhere, which no node offers at all"
    await eventually(lambda: missing in message("nowhere"), timeout_s=60)
    read_only = "needs the volume weights, which no node offers for writing"
    await eventually(lambda: read_only in message("writer"), timeout_s=60)
    mesh.forebay("delete", "nowhere").ok()
    mesh.forebay("delete", "writer").ok()


async def test_volumes_are_listed_with_their_nodes(mesh: ForebayUp, weights: Path) -> None:
    def both_nodes_report() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = mesh.forebay("volumes", "-o", "json").json()
        assert [len(each["read_write_nodes"] + each["read_only_nodes"]) for each in found] == [2, 2]
        return found

    data, listed = await eventually(both_nodes_report, timeout_s=60)
    assert data == {
        "name": "data",
        "read_write_nodes": ["node-1", "node-2"],
        "read_only_nodes": [],
        "path": str(mesh.state_dir / "volumes" / "data"),
        "path_read_only": False,
    }
    assert (listed["name"], listed["read_only_nodes"]) == ("weights", ["node-1", "node-2"])
    table = mesh.forebay("volumes").ok().out
    assert f"{weights} (read only)" in table
