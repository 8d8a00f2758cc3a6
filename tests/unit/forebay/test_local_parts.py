"""The local mesh's parts that need no mesh: ports, state, configuration, interpreters."""

import asyncio
import socket
import stat
import sys
from pathlib import Path

import pytest

from forebay import addresses
from forebay.cli.output import to_plain
from forebay.deploying import changed_fields
from forebay.local import child, interpreter, nats_server, triton_setup
from forebay.local.interpreter import SetupError
from forebay.local.reserved_ports import ReservedPorts
from forebay.local.state import StateInUseError, locked
from forebay.v1.deployment_pb2 import Canary, Deployment, ReplicaResources
from forebay.v1.metrics_pb2 import DeploymentLoad
from services.runtime.ports import AddressError, split
from tests.support.eventually import eventually


def test_a_reserved_port_can_be_listened_on_again_and_again() -> None:
    with ReservedPorts() as reserved:
        address = reserved.reserve("127.0.0.1:0")
        for _ in range(2):
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(split(address))
                listener.listen()


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as listener, ReservedPorts() as reserved:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(AddressError, match=address):
            reserved.reserve(address)


def test_a_second_mesh_on_the_same_state_is_told_the_first_ones_pid(tmp_path: Path) -> None:
    import os

    with locked(tmp_path):
        with pytest.raises(StateInUseError, match=f"process {os.getpid()}"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_nats_credentials_are_for_their_owner_only(tmp_path: Path) -> None:
    files = nats_server.write_files(tmp_path / "nats", 1234)
    assert stat.S_IMODE((tmp_path / "nats").stat().st_mode) == 0o700
    for file in (files.config, files.credentials):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    user, _, password = files.credentials.read_text().strip().partition(":")
    assert user == "forebay"
    assert len(bytes.fromhex(password)) == 32
    assert password in files.config.read_text()


def test_every_start_has_a_new_password(tmp_path: Path) -> None:
    first = nats_server.write_files(tmp_path, 1).credentials.read_text()
    assert nats_server.write_files(tmp_path, 1).credentials.read_text() != first


def test_this_python_is_probed_by_running_it() -> None:
    found = interpreter.probe(Path(sys.executable))
    assert found is not None
    assert found.version == f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_a_python_that_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not run"):
        interpreter.find(tmp_path / "python3.12")


def test_an_incomplete_triton_home_is_not_current(tmp_path: Path) -> None:
    assert not triton_setup.is_current(tmp_path)
    (tmp_path / "manifest.json").write_text('{"triton_version": "1"}')
    assert triton_setup.read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text(
        '{"triton_version": "2.51.0", "wheel_version": "0.7.0", "python_version": "3.11",'
        ' "libpython": "libpython3.11.so.1.0"}'
    )
    assert triton_setup.read_manifest(tmp_path) is not None
    assert not triton_setup.is_current(tmp_path)


def test_the_last_words_of_a_log_are_its_last_error(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert child.last_words(log) == "it wrote nothing"
    log.write_text('{"level": "error", "event": "e", "error": "port in use"}\n{"level": "info"}\n')
    assert child.last_words(log) == "port in use"
    log.write_text("not json\nkilled\n")
    assert child.last_words(log) == "killed"


def test_a_large_log_is_put_aside_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old" + b"\0" * child.LOG_LIMIT_BYTES)
        child.rotate(log)
        writer.write(b"new")
        child.rotate(log)
    assert log.read_bytes() == b"new"
    aside = tmp_path / "router.log.1"
    assert aside.read_bytes() == b"\0" * child.LOG_LIMIT_BYTES


async def test_a_running_process_does_not_fill_the_disk_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOG_LIMIT_BYTES", 1000)
    monkeypatch.setattr(child, "LOG_CHECK_S", 0.01)
    log = tmp_path / "chatty.log"
    code = "import time\nwhile True: print('x' * 99, flush=True); time.sleep(0.001)"
    chatty = child.Child(
        child.ChildSpec("chatty", (sys.executable, "-c", code), log, None, {}, 5.0), lambda _: None
    )
    running = asyncio.create_task(chatty.keep_running())
    try:
        await eventually((tmp_path / "chatty.log.1").exists)
        await eventually(lambda: log.stat().st_size < 1000)
    finally:
        await chatty.stop()
        await running
    assert chatty.start_count == 1


def test_the_environment_wins_over_a_running_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    (tmp_path / "mesh.json").write_text(f'{{"pid": {os.getpid()}, "router": "127.0.0.1:1"}}')
    monkeypatch.delenv("FOREBAY_ROUTER", raising=False)
    assert addresses.resolve("router", None, tmp_path) == "127.0.0.1:1"
    monkeypatch.setenv("FOREBAY_ROUTER", "127.0.0.1:2")
    assert addresses.resolve("router", None, tmp_path) == "127.0.0.1:2"
    assert addresses.resolve("router", "127.0.0.1:3", tmp_path) == "127.0.0.1:3"


def test_the_file_of_a_mesh_that_was_killed_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOREBAY_ROUTER", raising=False)
    (tmp_path / "mesh.json").write_text('{"pid": 4194305, "router": "127.0.0.1:1"}')
    assert addresses.resolve("router", None, tmp_path) == "127.0.0.1:7701"


def test_a_deployment_that_only_spells_out_defaults_is_unchanged() -> None:
    current = Deployment(name="deployments/a", replicas=1, canary=Canary(mode=Canary.MODE_ZEROS))
    wanted = Deployment(name="deployments/a", replicas=1, resources=ReplicaResources())
    assert changed_fields(current, wanted) == []
    wanted.replicas = 2
    wanted.model_digest = "sha256:1"
    assert changed_fields(current, wanted) == ["model_digest", "replicas"]


def test_json_says_null_for_unknown_and_seconds_for_durations() -> None:
    load = DeploymentLoad(deployment="deployments/a", queued_count=0)
    load.age.FromMilliseconds(1500)
    plain = to_plain(load)
    assert plain["queued_count"] == 0
    assert plain["ongoing_count"] is None
    assert plain["age_s"] == 1.5
    assert plain["queue_wait"] is None
