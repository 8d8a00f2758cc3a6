"""The node agent as a process of its own."""

import fcntl
import subprocess
import sys
from pathlib import Path


def run_agent(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.node_agent.main", "--log-format", "json", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_agent_on_the_same_state_says_so(tmp_path: Path) -> None:
    with (tmp_path / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_agent("--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "another node agent runs on" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_triton_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = run_agent("--state-dir", str(tmp_path), "--triton-home", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "forebay setup" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_is_not_legal_is_told_with_what_is(tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("slots: -1\nslotz: 3\n")
    done = run_agent("--config", str(config))
    assert done.returncode == 2
    assert "slots = -1: Input should be greater than or equal to 0" in done.stderr
    assert f"slotz in {config}: unknown key" in done.stderr
