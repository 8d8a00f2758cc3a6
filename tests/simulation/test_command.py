"""`forebay simulate` on a small trace."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "simulate"


def simulate(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "forebay.cli.main", "simulate", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def numbers(*arguments: str | Path) -> dict[str, Any]:
    done = simulate(*arguments, "--trace", EXAMPLE / "arrivals.csv", "-o", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_files_are_compared_on_the_same_requests() -> None:
    found = numbers(EXAMPLE / "quick.yaml", EXAMPLE / "thrifty.yaml", "--service-time-s", "0.5,2")
    quick, thrifty = found["deployments"]["quick"], found["deployments"]["thrifty"]
    assert quick["requests"] == thrifty["requests"] > 500
    assert quick["never_served"] == thrifty["never_served"] == 0
    assert quick["served"] == quick["requests"]
    assert quick["replica_s"] > thrifty["replica_s"] > 0
    assert quick["over_target_ratio"] < thrifty["over_target_ratio"]
    assert quick["arrivals_per_s"] == thrifty["arrivals_per_s"]
    assert quick["mean_replicas"] * found["duration_s"] == pytest.approx(
        quick["replica_s"], rel=1e-3
    )


def test_the_same_seed_gives_the_same_numbers() -> None:
    options = (EXAMPLE / "quick.yaml", "--service-time-s", "0.5,2", "--startup-time-s", "4,9")
    assert numbers(*options) == numbers(*options)
    assert numbers(*options) != numbers(*options, "--seed", "1")


def test_too_few_nodes_make_requests_wait() -> None:
    roomy = numbers(EXAMPLE / "quick.yaml")["deployments"]["quick"]
    tight = numbers(EXAMPLE / "quick.yaml", "--nodes", "1", "--slots", "1")["deployments"]["quick"]
    assert tight["max_replicas"] == 1 < roomy["max_replicas"]
    assert tight["wait_p95_s"] > roomy["wait_p95_s"]


def test_a_replica_that_fits_no_node_is_told_and_has_no_queue_wait(tmp_path: Path) -> None:
    deployment = tmp_path / "large.yaml"
    deployment.write_text("name: large\nmodel: m\nreplicas: 1\nresources: {gpus: 5}\n")
    options = (deployment, "--nodes", "2", "--gpus-per-node", "1", "--duration-s", "60")
    found = numbers(*options)["deployments"]["large"]
    assert found["served"] == 0 < found["requests"]
    assert found["wait_p50_s"] is found["wait_max_s"] is None
    done = simulate(*options, "--trace", EXAMPLE / "arrivals.csv")
    assert re.search(r"queue wait p50 +none", done.stdout)
    assert "large: no replica can ever have a place on these nodes: " in done.stderr
    assert found["no_place"] in done.stderr


def test_faster_arrivals_need_more_replicas() -> None:
    usual = numbers(EXAMPLE / "quick.yaml")
    faster = numbers(EXAMPLE / "quick.yaml", "--speed-up", "4", "--repeat", "4")
    assert (
        faster["deployments"]["quick"]["mean_replicas"]
        > usual["deployments"]["quick"]["mean_replicas"]
    )
    assert faster["duration_s"] == pytest.approx(usual["duration_s"], abs=2)


def test_a_table_and_a_picture_are_made(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    done = simulate(
        EXAMPLE / "quick.yaml",
        EXAMPLE / "thrifty.yaml",
        "--trace",
        EXAMPLE / "arrivals.csv",
        "--plot",
        picture,
    )
    assert done.returncode == 0, done.stderr
    assert "replica-seconds" in done.stdout
    assert "█" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "counts.csv"
    rows = [f"f{i},{i % 7},{i % 3},{i % 5 * 40000}" for i in range(16)]
    trace.write_text("\n".join(["function,1,2,3", *rows]) + "\n")
    # One replica takes them at once, so that a run of a million is short.
    options = (EXAMPLE / "quick.yaml", "--trace", trace, "--service-time-s", "0.001", "-o", "json")
    one, two = (simulate(*options, "--jobs", jobs) for jobs in ("1", "2"))
    assert one.returncode == 0, one.stderr
    assert one.stdout == two.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--service-time-s", "fast"), "--service-time-s = 'fast': it must be seconds above 0"),
        (("--service-time-s", "2,1"), "--service-time-s = '2,1': it must be seconds above 0"),
        (("--startup-time-s", "-1"), "--startup-time-s = '-1'"),
        (("--durations", "nowhere.csv"), "cannot read nowhere.csv"),
    ],
)
def test_wrong_options_are_named(arguments: tuple[str, str], said: str) -> None:
    done = simulate(EXAMPLE / "quick.yaml", "--trace", EXAMPLE / "arrivals.csv", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_wrong_line_of_a_trace_or_a_deployment_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("1\n2\nthree\n")
    done = simulate(EXAMPLE / "quick.yaml", "--trace", trace)
    assert done.returncode == 2
    assert f"{trace}:3: 'three'" in done.stderr
    deployment = tmp_path / "d.yaml"
    deployment.write_text("name: a\nmodel: m\nscaling: {policy: queue_depth, max_replica: 3}\n")
    done = simulate(deployment, "--trace", EXAMPLE / "arrivals.csv")
    assert done.returncode == 2
    assert f"{deployment}:3: unknown key scaling.max_replica" in done.stderr


def test_a_picture_without_matplotlib_is_refused_at_once() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"sys.argv = ['forebay', 'simulate', {str(EXAMPLE / 'quick.yaml')!r}, "
        "'--trace', 'nowhere.csv', '--plot', 'out.png']\n"
        "from forebay.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pip install 'forebay[plot]'" in done.stderr


def test_time_windows_go_by_the_clock_that_is_given(tmp_path: Path) -> None:
    deployment = tmp_path / "office.yaml"
    window = "{begin: 0 8 * * MON, end: 0 18 * * MON, min_replicas: 5}"
    deployment.write_text(
        f"name: office\nmodel: m\nscaling: {{max_replicas: 5, windows: [{window}]}}\n"
    )
    monday = numbers(deployment, "--start", "2026-03-02T08:00")["deployments"]["office"]
    sunday = numbers(deployment, "--start", "2026-03-01T08:00")["deployments"]["office"]
    assert monday["mean_replicas"] > 4.5
    assert sunday["mean_replicas"] < monday["mean_replicas"]
