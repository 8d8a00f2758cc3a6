"""The `forebay` command as a user runs it, against a whole mesh with a real Triton."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from forebay.addresses import running_mesh
from tests.support.eventually import eventually
from tests.support.forebay_up import ROOT, ForebayUp, Ran, run_forebay, write_echo


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    with ForebayUp(tmp_path_factory.mktemp("cli") / "state", "--nodes", "2") as up:
        yield up


@pytest.fixture(scope="module")
def echo(mesh: ForebayUp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = write_echo(tmp_path_factory.mktemp("echo"))
    mesh.forebay("deploy", file).ok()
    return file


def test_deploying_says_what_it_did(mesh: ForebayUp, tmp_path: Path) -> None:
    created = mesh.forebay("deploy", write_echo(tmp_path, name="said")).ok()
    assert "said created: generation 1" in created.err
    assert "said is ready: 1 replica\n" in created.err
    assert "said unchanged" in mesh.forebay("deploy", tmp_path).ok().err
    write_echo(tmp_path, name="said", replicas=2)
    assert "said updated (replicas)" in mesh.forebay("deploy", tmp_path).ok().err
    assert "`forebay list`" in mesh.forebay("status", "unsaid").err
    assert mesh.forebay("delete", "said", "-o", "json").json() == {"deleted": "deployments/said"}
    assert mesh.forebay("status", "said").code == 3


def test_a_changed_model_replaces_the_replicas(mesh: ForebayUp, tmp_path: Path) -> None:
    first = mesh.forebay("deploy", write_echo(tmp_path, name="changing"), "-o", "json").json()
    (tmp_path / "model" / "1" / "more.py").write_text("# more\n")
    second = mesh.forebay("deploy", tmp_path, "-o", "json").json()
    assert (first["change"], second["change"]) == ("created", "updated")
    assert (first["generation"], second["generation"]) == (1, 2)
    assert second["status"]["updated_replica_count"] == 1
    mesh.forebay("delete", "changing").ok()


def test_a_model_that_triton_refuses_is_told_in_tritons_words(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    file = write_echo(tmp_path, name="refused")
    (tmp_path / "model" / "1" / "model.py").write_text("import nothing_of_that_name\n")
    failed = mesh.forebay("deploy", file)
    assert failed.code == 1
    assert "nothing_of_that_name" in failed.err
    assert "forebay logs refused --replica" in failed.err
    assert "nothing_of_that_name" in mesh.forebay("status", "refused").ok().out
    assert "nothing_of_that_name" in mesh.forebay("logs", "refused").ok().out
    mesh.forebay("delete", "refused").ok()


def test_not_waiting_returns_before_the_replicas_are_ready(mesh: ForebayUp, tmp_path: Path) -> None:
    file = write_echo(tmp_path, name="unwaited")
    declared = mesh.forebay("deploy", file, "--no-wait", "-o", "json").json()
    assert declared["status"]["updated_replica_count"] == 0
    mesh.forebay("delete", "unwaited").ok()


def test_too_short_a_wait_says_what_the_replicas_are_doing(mesh: ForebayUp, tmp_path: Path) -> None:
    late = mesh.forebay("deploy", write_echo(tmp_path, name="late"), "--timeout-s", "0.01")
    assert late.code == 1
    assert "late is not ready after 0.01 s: 0 of 1 replica ready" in late.err
    mesh.forebay("delete", "late").ok()


def test_arrays_go_in_as_json_or_npy(mesh: ForebayUp, echo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.array([1.5, 2.5], np.float32))
    ran = mesh.forebay(
        *("infer", "echo", "-o", "json", "--input", "IN_INT64=[1, 2]"),
        *("--input", f"IN_FP32=@{tmp_path / 'array.npy'}", "--input", 'IN_STRING=["é"]'),
    )
    (result,) = ran.json()["results"]
    assert result["outputs"] == {"OUT_INT64": [1, 2], "OUT_FP32": [1.5, 2.5], "OUT_STRING": ["é"]}
    assert len(result["request_id"]) == 32


def test_a_table_has_ids_only_when_asked(mesh: ForebayUp, echo: Path) -> None:
    plain = mesh.forebay("infer", "echo", "-i", "IN_INT8=[3]").ok().out.split()
    assert plain[:3] == ["INPUT", "OUT_INT8", "MS"]
    assert plain[3:5] == ["IN_INT8", "3"]
    assert "REQUEST" in mesh.forebay("infer", "echo", "-i", "IN_INT8=[3]", "-v").ok().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("infer", "echo"), 2, "name files, or inputs"),
        (("infer", "echo", "README.md"), 2, "does not take files"),
        (("infer", "echo", "-i", "IN_INT8=[300]"), 2, "is not a JSON array of INT8"),
        (("infer", "echo", "-i", "NO=[3]"), 2, "where NAME is one of the inputs"),
        (("infer", "echo", "-i", "IN_INT8=@nothing.npy"), 2, "cannot read nothing.npy"),
        (("infer", "echo", "-i", 'IN_STRING=["raise"]'), 1, "told to raise"),
        (
            ("infer", "echo", "--timeout-s", "0.2", "-i", "WAIT_S=[2]", "-i", "IN_INT8=[1]"),
            1,
            "1 of 1 requests failed",
        ),
        (("infer", "nowhere", "-i", "X=[1]"), 3, "nowhere"),
        (("infer", "echo", "-i", "X=[1]", "--router", "127.0.0.1:1"), 4, "`forebay up`"),
        (("status", "nowhere"), 3, "nowhere"),
        (("status", "No.Where"), 2, "cannot name a deployment"),
        (("delete", "nowhere"), 3, "nowhere"),
        (("logs", "nowhere"), 3, "nowhere has no replica"),
        (("list", "--autoscaler", "127.0.0.1:1"), 4, "nothing answers at 127.0.0.1:1"),
        (("nodes", "--metrics", "127.0.0.1:1"), 4, "nothing answers at 127.0.0.1:1"),
        (("deploy", "nowhere.yaml"), 2, "cannot read nowhere.yaml"),
        (("deploy", "protos"), 2, "protos has no deployment.yaml"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_a_failure_is_a_sentence_and_an_exit_code(
    mesh: ForebayUp, echo: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    failed = mesh.forebay(*arguments)
    assert (failed.code, failed.out if code > 1 else "") == (code, "")
    assert said in failed.err
    assert "Traceback" not in failed.err


def test_everything_that_is_shown_is_also_json(mesh: ForebayUp, echo: Path) -> None:
    (deployment,) = mesh.forebay("list", "-o", "json").json()
    assert (deployment["name"], deployment["request_timeout_s"]) == ("deployments/echo", 60.0)
    shown = mesh.forebay("status", "echo", "-o", "json").json()
    assert shown["load"]["ready_replica_count"] == 1
    (replica,) = shown["replica_statuses"]
    assert (replica["state"], replica["max_ongoing_requests"]) == ("ready", 8)
    nodes = mesh.forebay("nodes", "-o", "json").json()
    assert {node["name"]: node["state"] for node in nodes} == {
        "nodes/node-1": "active",
        "nodes/node-2": "active",
    }
    line = mesh.forebay("logs", "echo", "-n", "1", "-o", "json").ok().out.splitlines()[0]
    assert json.loads(line)["replica_id"] == replica["replica_id"]
    assert mesh.forebay("schema").json()["additionalProperties"] is False


def test_following_a_log_ends_cleanly_with_ctrl_c(mesh: ForebayUp, echo: Path) -> None:
    command = [sys.executable, "-m", "forebay.cli.main", "logs", "echo", "--follow"]
    environment = {**os.environ, "FOREBAY_STATE_DIR": str(mesh.state_dir)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline()
        following.send_signal(signal.SIGINT)
        following.stdout.read()
        said = following.stderr.read().decode()
    assert (following.returncode, said) == (130, "interrupted\n")


def test_a_second_mesh_on_the_same_state_names_the_first(mesh: ForebayUp) -> None:
    second = mesh.forebay("up")
    assert second.code == 2
    assert f"a mesh already runs on {mesh.state_dir} (process {mesh.process.pid})" in second.err


def test_a_port_in_use_is_named_and_nothing_is_left(mesh: ForebayUp, tmp_path: Path) -> None:
    taken = mesh.mesh["router"]
    failed = run_forebay("up", "--router-address", taken, state_dir=tmp_path / "other")
    assert failed.code == 2
    assert f"cannot listen on {taken}" in failed.err
    assert not (tmp_path / "other" / "mesh.json").exists()


async def test_whatever_is_killed_is_started_again(mesh: ForebayUp, echo: Path) -> None:
    for name in ("nats", "router", "autoscaler", "metrics", "node-1", "node-2"):
        mesh.kill(name)

    def answers() -> bool:
        return mesh.forebay("infer", "echo", "-i", "IN_INT8=[3]", "--timeout-s", "10").code == 0

    await eventually(answers, timeout_s=120)
    assert "nats ended (killed by SIGKILL); starting it again in 0.2 s" in mesh.console


def test_doctor_finds_what_is_here(mesh: ForebayUp) -> None:
    checks = {check["name"]: check for check in mesh.forebay("doctor", "-o", "json").json()}
    assert {checks[name]["state"] for name in ("python", "nats-server", "triton")} == {"ok"}
    assert mesh.mesh["router"] in checks["mesh"]["detail"]


def test_doctor_fails_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_TRITON_HOME", str(tmp_path / "none"))
    found = run_forebay("doctor", state_dir=tmp_path)
    assert found.code == 1
    assert "missing: triton, numpy for models" in found.err


def test_setup_does_nothing_twice() -> None:
    assert run_forebay("setup", "-o", "json").json()["created"] is False


def test_setup_refuses_a_python_that_cannot_run_models(tmp_path: Path) -> None:
    refused = run_forebay("setup", "--triton-home", tmp_path / "t", "--python", "/bin/true")
    assert refused.code == 1
    assert "/bin/true does not run" in refused.err
    assert not (tmp_path / "t").exists()


def test_help_documents_the_exit_codes() -> None:
    shown = " ".join(run_forebay("--help").ok().out.split())
    assert "0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 the mesh" in shown
    assert run_forebay("--version").ok().out.startswith("forebay ")


async def test_a_killed_up_takes_everything_with_it(tmp_path: Path) -> None:
    up = ForebayUp(tmp_path / "state")
    up.start()
    try:
        up.forebay("deploy", write_echo(tmp_path)).ok()
        assert any("tritonserver" in line for line in up.left())
    finally:
        up.stop(signal.SIGKILL)
    await eventually(lambda: not up.left(), timeout_s=60)
    # Nobody removed its file; nobody believes it either.
    assert (up.state_dir / "mesh.json").exists()
    assert running_mesh(up.state_dir) == {}
    with ForebayUp(tmp_path / "state") as again:
        (deployment,) = again.forebay("list", "-o", "json").json()
        assert deployment["name"] == "deployments/echo"


async def test_a_killed_agents_triton_ends_with_the_mesh(tmp_path: Path) -> None:
    with ForebayUp(tmp_path / "state") as up:
        up.forebay("deploy", write_echo(tmp_path)).ok()
        agent = psutil.Process(up.pid("node-1"))
        agent.suspend()
        # It cannot drain: it is killed after its grace, and its Triton with it.
        up.process.send_signal(signal.SIGINT)
        await eventually(lambda: "stopping the node agents" in up.console, timeout_s=60)
        up.process.send_signal(signal.SIGINT)
        up.process.wait(60)
        assert "killing everything" in up.console
        assert up.left() == []


@pytest.mark.timeout(300)
def test_the_demo_runs_and_leaves_nothing() -> None:
    shown = demo_json()
    labels = {Path(result["input"]).name: result["outputs"]["LABEL"] for result in shown["results"]}
    assert labels["client.py"] == [["python"]]
    assert labels["pyproject.toml"] == [["toml"]]
    assert shown["steps"][0]["step"] == "started the mesh"
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any("forebay-demo-" in word for word in process.info["cmdline"] or ())
    ]
    assert left == []


def demo_json() -> dict[str, list[dict[str, object]]]:
    ran: Ran = run_forebay("demo", "-o", "json", timeout_s=280)
    shown: dict[str, list[dict[str, object]]] = ran.json()
    return shown


def test_shell_completion_knows_the_commands() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    environment = {
        **os.environ,
        "_FOREBAY_COMPLETE": "complete_bash",
        "COMP_WORDS": "forebay st",
        "COMP_CWORD": "1",
    }
    program = "import sys; sys.argv[0] = 'forebay'; from forebay.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["status"]
