"""Where a volume is on this machine, and that nothing leads out of it."""

import json
import os
from pathlib import Path

import pytest

from forebay.cli.failure import CliError
from forebay.cli.up import volumes_of
from forebay.volumes import VolumeError, here, resolve, volume


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("FOREBAY_VOLUMES", f"data={folder}, weights={folder}:ro")
    return folder


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("volume://data", ""),
        ("volume://data/", ""),
        ("volume://data/in.jsonl", "in.jsonl"),
        ("volume://data/a/../b/c", "b/c"),
        ("volume://data//etc/passwd", "etc/passwd"),
    ],
)
def test_a_location_in_a_volume_is_a_path_of_this_machine(
    data: Path, location: str, path: str
) -> None:
    assert resolve(location) == data / path


@pytest.mark.parametrize("inside", ["..", "../secret", "a/../../secret", "out/x", "\0", "circle/x"])
def test_nothing_leads_out_of_a_volume(data: Path, tmp_path: Path, inside: str) -> None:
    (data / "out").symlink_to(tmp_path)
    (data / "circle").symlink_to("circle")
    with pytest.raises(VolumeError):
        resolve(f"volume://data/{inside}")


def test_a_link_within_a_volume_is_followed(data: Path) -> None:
    (data / "new").mkdir()
    (data / "latest").symlink_to("new")
    assert resolve("volume://data/latest/in") == data / "new" / "in"


def test_what_may_only_be_read_is_not_written(data: Path) -> None:
    assert resolve("volume://weights/x") == data / "x"
    with pytest.raises(VolumeError, match="the volume weights may only be read here"):
        resolve("volume://weights/x", writing=True)


def test_a_volume_that_is_not_known_says_what_to_do(data: Path) -> None:
    with pytest.raises(VolumeError, match="no volume x is known on this machine; there are data"):
        resolve("volume://x/y")
    with pytest.raises(VolumeError, match="cannot name a volume"):
        resolve("volume:///etc/passwd")
    with pytest.raises(VolumeError, match="is not in a volume: write volume://name/path"):
        resolve("/etc/passwd")


def test_a_replica_finds_its_volume_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_VOLUME_MY_DATA", str(tmp_path))
    assert volume("my-data") == tmp_path
    with pytest.raises(VolumeError, match="no volume other is known"):
        volume("other")


def test_volumes_are_those_of_the_mesh_that_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOREBAY_VOLUMES", raising=False)
    mesh = {"pid": os.getpid(), "router": "127.0.0.1:1", "volumes": {"data": f"{tmp_path}:ro"}}
    (tmp_path / "mesh.json").write_text(json.dumps(mesh))
    assert resolve("volume://data/x", tmp_path) == tmp_path / "x"
    (tmp_path / "mesh.json").write_text(json.dumps({**mesh, "pid": 2**22 + 1}))
    assert here(tmp_path) == {}


def test_volumes_that_are_not_legal_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_VOLUMES", "data")
    with pytest.raises(VolumeError, match="FOREBAY_VOLUMES: the volume data = '': it needs an abs"):
        here()


def test_up_makes_the_folder_of_a_volume_that_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    monkeypatch.chdir(tmp_path)
    found = volumes_of(["data", "weights=w:ro", "kept:ro"], tmp_path / "state")
    assert found == {
        "data": f"{tmp_path}/state/volumes/data",
        "weights": f"{tmp_path}/w:ro",
        "kept": f"{tmp_path}/state/volumes/kept:ro",
    }
    assert (tmp_path / "state" / "volumes" / "data").is_dir()


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["data=/no/such"], "--volume: the volume data: /no/such is not there"),
        (["data="], "--volume data=: name a folder after =, or leave = out"),
        (["../x"], "--volume: '../x' cannot name a volume"),
        (["a", "a"], "--volume: the volume a is named twice"),
    ],
)
def test_up_says_what_is_wrong_with_a_volume(tmp_path: Path, items: list[str], said: str) -> None:
    with pytest.raises(CliError) as caught:
        volumes_of(items, tmp_path)
    assert said in str(caught.value)
