"""Volumes of a node: what settings may name, and how a replica that is a process sees them."""

import json
from pathlib import Path

import pytest

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.deployment_pb2 import VolumeMount
from services.node_agent.models import volumes
from services.node_agent.models.volumes import Mount, VolumeError
from services.node_agent.replica_environment import variables
from services.node_agent.settings import NodeAgentSettings
from services.runtime.config import ConfigError
from services.wire.offered_volumes import OfferedVolume, parse


def load(values: dict[str, str]) -> NodeAgentSettings:
    return NodeAgentSettings.load(["--volumes", json.dumps(values)])


def test_a_node_offers_folders_by_name(tmp_path: Path) -> None:
    offered = load({"data": str(tmp_path), "weights": f"{tmp_path}:ro"}).offered_volumes
    assert offered == {
        "data": OfferedVolume("data", tmp_path),
        "weights": OfferedVolume("weights", tmp_path, read_only=True),
    }


def test_a_flag_may_say_name_and_path(tmp_path: Path) -> None:
    settings = NodeAgentSettings.load(["--volumes", f"data={tmp_path}:ro"])
    assert settings.volumes == {"data": f"{tmp_path}:ro"}


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("Data", "/", "'Data' cannot name a volume: a name is 1 to 63 of a-z"),
        ("data", "srv/data", "the volume data = 'srv/data': it needs an absolute path"),
        ("data", "", "the volume data = '': it needs an absolute path, such as /srv/data"),
        ("data", "/no/such/folder", "the volume data: /no/such/folder is not there"),
        ("data", "/etc/passwd:ro", "the volume data: /etc/passwd is not a folder"),
    ],
)
def test_a_volume_that_cannot_be_offered_ends_the_agent_at_its_start(
    name: str, path: str, said: str
) -> None:
    with pytest.raises(ConfigError, match="volumes") as caught:
        load({name: path})
    assert said in str(caught.value)


def test_a_name_twice_on_the_command_line_is_refused() -> None:
    assert parse(["a=/x:ro", "b"]) == {"a": "/x:ro", "b": ""}
    with pytest.raises(ValueError, match="the volume a is named twice"):
        parse(["a=/x", "a"])


def test_a_replica_finds_the_path_of_each_volume_in_its_environment(tmp_path: Path) -> None:
    mounts = [Mount("my-data", tmp_path, False), Mount("weights", tmp_path, True)]
    found = variables(Assignment(environment={"A": "b"}), mounts)
    assert found["FOREBAY_VOLUME_MY_DATA"] == str(tmp_path)
    assert "FOREBAY_VOLUME_MY_DATA_READ_ONLY" not in found
    assert found["FOREBAY_VOLUME_WEIGHTS_READ_ONLY"] == "1"
    assert found["A"] == "b"


def test_a_replicas_directory_has_a_link_to_each_volume_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "kept").write_text("x")
    volumes.link(tmp_path, [Mount("old", tmp_path / "one", False)])
    volumes.link(tmp_path, [Mount("data", tmp_path / "one", False)])
    volumes.link(tmp_path, [Mount("data", tmp_path / "one", False)])
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]
    assert (tmp_path / "volumes" / "data" / "kept").read_text() == "x"


def test_a_volume_is_seen_as_the_stricter_of_both_sides_says(tmp_path: Path) -> None:
    offered = {
        "data": OfferedVolume("data", tmp_path),
        "weights": OfferedVolume("weights", tmp_path, read_only=True),
    }
    wanted = [VolumeMount(name=name, read_only=True) for name in ("data", "weights")]
    assert [mount.read_only for mount in volumes.mounts_of(wanted, offered)] == [True, True]
    (mount,) = volumes.mounts_of([VolumeMount(name="data")], offered)
    assert mount == Mount("data", tmp_path, read_only=False)


def test_what_the_node_offers_no_more_is_said_in_a_sentence(tmp_path: Path) -> None:
    offered = {"weights": OfferedVolume("weights", tmp_path, read_only=True)}
    with pytest.raises(VolumeError, match="does not offer the volume data any more"):
        volumes.mounts_of([VolumeMount(name="data")], offered)
    with pytest.raises(VolumeError, match="offers the volume weights for reading only"):
        volumes.mounts_of([VolumeMount(name="weights")], offered)
    gone = {"data": OfferedVolume("data", tmp_path / "gone")}
    with pytest.raises(VolumeError, match="gone is not there"):
        volumes.mounts_of([VolumeMount(name="data")], gone)
