"""What the docker runtime writes down, says, and lets containers read."""

import json
from pathlib import Path

import pytest

from forebay.v1.deployment_pb2 import VolumeMount
from forebay.v1.launcher_pb2 import ReplicaContainer
from services.node_agent.containers import ends, readable
from services.node_agent.containers.launcher_link import LauncherLink
from services.node_agent.containers.record import RECORD, ContainerRecord
from services.node_agent.models import volumes
from services.node_agent.models.model_cache import build_repository
from services.node_agent.settings import NodeAgentSettings
from services.wire.offered_volumes import OfferedVolume

EXITED, RUNNING = ReplicaContainer.STATE_EXITED, ReplicaContainer.STATE_RUNNING


@pytest.mark.parametrize(
    ("container", "said"),
    [
        (ReplicaContainer(state=RUNNING), ""),
        (ReplicaContainer(state=ReplicaContainer.STATE_UNKNOWN, message="engine away"), ""),
        (ReplicaContainer(state=EXITED, exit_code=3), "its container ended with exit code 3"),
        (ReplicaContainer(state=EXITED, exit_code=3, message="it was told"), "it was told"),
        (ReplicaContainer(state=RUNNING, out_of_memory=True), "its container ran out of memory"),
        (
            ReplicaContainer(state=ReplicaContainer.STATE_GONE, message="there is none"),
            "its container was removed from outside",
        ),
    ],
)
def test_why_a_container_does_not_run_is_said_in_the_launchers_words_first(
    container: ReplicaContainer, said: str
) -> None:
    assert ends.why(container) == said


def test_a_record_is_for_its_own_user_alone_and_comes_back_as_it_was(tmp_path: Path) -> None:
    record = ContainerRecord("k" * 32, "sha256:1", "container", "10.0.0.2:8001", 2.5)
    record.write(tmp_path)
    record.write(tmp_path)
    assert ContainerRecord.read(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]
    assert (tmp_path / RECORD).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"access_key": "k", "image_id": "i"}', json.dumps({"container_id": "c"})],
)
def test_a_record_that_is_broken_or_of_a_container_not_started_is_none(
    tmp_path: Path, text: str
) -> None:
    assert ContainerRecord.read(tmp_path) is None
    (tmp_path / RECORD).write_text(text)
    assert ContainerRecord.read(tmp_path) is None


def test_a_containers_repository_points_to_where_it_sees_the_model_and_can_be_read(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    (model / "1").mkdir(parents=True, mode=0o700)
    (model / "1" / "model.py").write_text("")
    (model / "1" / "model.py").chmod(0o600)
    (model / "1" / "run").write_text("")
    (model / "1" / "run").chmod(0o700)
    (model / "config.pbtxt").write_text('backend: "python"')
    repository = tmp_path / "repository"
    build_repository(model, repository, "named", seen_at=Path("/forebay/model"))
    assert (repository / "named" / "1").readlink() == Path("/forebay/model/1")
    assert (repository / "named").stat().st_mode & 0o777 == 0o755
    assert (repository / "named" / "config.pbtxt").stat().st_mode & 0o777 == 0o644

    readable.by_all(model)
    assert (model / "1").stat().st_mode & 0o777 == 0o755
    assert (model / "1" / "model.py").stat().st_mode & 0o777 == 0o644
    assert (model / "1" / "run").stat().st_mode & 0o777 == 0o744


def test_folders_that_only_the_launcher_sees_may_be_offered_to_containers() -> None:
    flags = ["--volumes", '{"data": "/no/such/folder"}', "--runtime", "docker"]
    offered = NodeAgentSettings.load(flags).offered_volumes
    assert offered == {"data": OfferedVolume("data", Path("/no/such/folder"))}
    (mount,) = volumes.mounts_of([VolumeMount(name="data")], offered, seen=False)
    assert not mount.read_only


def test_a_socket_whose_path_no_socket_can_have_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="at most 107 bytes"):
        LauncherLink(tmp_path / ("x" * 108))
