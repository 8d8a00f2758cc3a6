"""What the engine says of a container, in words of ours."""

from typing import Any

from forebay.v1.launcher_pb2 import ReplicaContainer
from services.launcher import container_state as states
from services.launcher.pull_progress import PullProgress

NETWORK = "forebay-replicas"


def inspected(status: str, **state: Any) -> dict[str, Any]:
    return {
        "Id": "c" * 64,
        "Image": "sha256:" + "ab" * 32,
        "Config": {"Labels": {"io.forebay.replica": "iris-0a1b2c3d", "io.forebay.node": "a"}},
        "State": {"Status": status, **state},
        "HostConfig": {"Memory": 1024**3},
        "NetworkSettings": {"Networks": {NETWORK: {"IPAddress": "172.20.0.2"}}},
    }


def test_a_running_container_has_an_address_and_no_message() -> None:
    found = states.of_inspected(inspected("running"), NETWORK)
    assert found.state == ReplicaContainer.STATE_RUNNING
    assert found.address == "172.20.0.2:8001"
    assert found.message == ""


def test_a_container_of_another_network_has_no_address() -> None:
    assert states.of_inspected(inspected("running"), "other").address == ""


def test_a_paused_one_says_who_froze_it() -> None:
    found = states.of_inspected(inspected("paused"), NETWORK)
    assert found.state == ReplicaContainer.STATE_PAUSED
    assert "docker unpause" in found.message


def test_a_process_killed_for_memory_shows_while_the_container_runs_on() -> None:
    found = states.of_inspected(inspected("running"), NETWORK, killed_in=True)
    assert found.out_of_memory
    assert "a process in it used more memory than its limit of 1 GiB" in found.message


def test_an_ended_one_says_why() -> None:
    found = states.of_inspected(inspected("exited", ExitCode=137, OOMKilled=True), NETWORK)
    assert found.state == ReplicaContainer.STATE_EXITED
    assert (found.exit_code, found.out_of_memory) == (137, True)
    assert "its limit of 1 GiB" in found.message
    assert found.address == ""


def test_one_that_the_launcher_stops_was_not_ended_from_outside() -> None:
    found = states.of_inspected(inspected("exited", ExitCode=137), NETWORK, stopping=True)
    assert found.message == "it was stopped, as the agent asked"


def test_only_what_is_used_may_differ_between_two_looks_that_are_the_same() -> None:
    one = states.of_inspected(inspected("running"), NETWORK)
    other = states.of_inspected(inspected("running"), NETWORK)
    other.memory_used_bytes = 7
    other.process_ids.append(1)
    assert states.same(one, other)
    other.message = "x"
    assert not states.same(one, other)
    assert not states.same(None, other)


def test_containers_of_others_do_not_belong() -> None:
    assert states.belongs(inspected("running"), {"io.forebay.node": "a"})
    assert not states.belongs(inspected("running"), {"io.forebay.node": "b"})
    assert not states.belongs({"Config": {"Labels": None}}, {"io.forebay.node": "a"})


def test_memory_leaves_the_files_out_that_the_kernel_keeps() -> None:
    version_2 = {"usage": 100, "stats": {"inactive_file": 30, "active_file": 20, "file": 60}}
    version_1 = {
        "usage": 100,
        "stats": {"total_inactive_file": 30, "total_active_file": 20, "inactive_file": 1},
    }
    assert states.memory_used_bytes({"memory_stats": version_2}) == 50
    assert states.memory_used_bytes({"memory_stats": version_1}) == 50
    assert states.memory_used_bytes({}) == 0


def test_a_pull_of_many_layers_is_one_line() -> None:
    progress = PullProgress("triton:1")
    assert progress.line() == "pulling triton:1"
    progress.take({"status": "Pulling from library/triton", "id": "1"})
    progress.take({"status": "Already exists", "id": "a"})
    detail = {"current": 512 * 1024**2, "total": 1024**3}
    progress.take({"status": "Downloading", "id": "b", "progressDetail": detail})
    assert progress.line() == ("pulling triton:1: 1 of 2 layers there, 512 MiB of 1 GiB loaded")
    progress.take({"status": "Extracting", "id": "b", "progressDetail": {"current": 1}})
    assert "1 GiB of 1 GiB loaded" in progress.line()
    progress.take({"status": "Pull complete", "id": "b"})
    progress.take({"status": "Digest: sha256:0f"})
    assert "2 of 2 layers there" in progress.line()


def test_a_pull_of_endless_layers_is_bounded() -> None:
    progress = PullProgress("triton:1")
    for number in range(1000):
        progress.take({"status": "Waiting", "id": f"{number:x}"})
    assert "of 256 layers" in progress.line()
