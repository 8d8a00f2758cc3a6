"""Alerts say what to do, and their tests pass."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from nats.js.api import DiscardPolicy

from services.wire import streams
from services.wire.tasks import streams as task_streams
from tests.contract.tree import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yaml"))
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))
SECTIONS = set(re.findall(r"^### (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE))

WITHOUT_PROMTOOL = "promtool is not installed: rules are not checked; `apt install prometheus`"


def alerts() -> dict[str, dict[str, Any]]:
    """All alerts by name."""
    return {
        rule["alert"]: rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def checks() -> Iterator[tuple[str, bool]]:
    """Each check of an alert in the tests, and whether it is to fire."""
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for check in test.get("alert_rule_test", []):
                yield check["alertname"], bool(check.get("exp_alerts"))


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(WITHOUT_PROMTOOL)
    return subprocess.run([found, *words], capture_output=True, text=True, timeout=120, check=False)


def test_rules_are_legal() -> None:
    done = promtool("check", "rules", "--lint-fatal", *map(str, RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_and_do_not_as_their_tests_say() -> None:
    done = promtool("test", "rules", *map(str, TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_is_tested_firing_and_silent(alert: str) -> None:
    seen = {fires for name, fires in checks() if name == alert}
    assert seen == {True, False}


def test_each_recorded_series_is_tested() -> None:
    tested = (FOLDER / "tests" / "recorded.yaml").read_text()
    found = set(re.findall(r"deployment:[a-z0-9_]+:[a-z0-9_]+", tested))
    recorded = re.findall(r"record: (\S+)", (FOLDER / "rules" / "recorded.yaml").read_text())
    assert found == set(recorded)


def test_tests_are_of_alerts_that_there_are() -> None:
    assert {name for name, _ in checks()} == set(alerts())


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = alerts()[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    said = rule["annotations"]
    assert said["summary"].strip()
    assert len(said["description"]) > len(said["summary"])
    assert said["runbook"] == f"docs/alerts.md#{alert.lower()}"
    assert alert in SECTIONS


def test_each_section_is_of_an_alert() -> None:
    assert set(alerts()) == SECTIONS


@pytest.mark.parametrize("alert", ["ForebayStreamNearLimit", "ForebayStreamFull"])
def test_streams_that_refuse_what_is_new_are_watched_and_no_others(alert: str) -> None:
    configured = [
        value
        for module in (streams, task_streams)
        for name, value in vars(module).items()
        if name.endswith("_CONFIG")
    ]
    refusing = {one.name for one in configured if one.discard is DiscardPolicy.NEW}
    watched = re.search(r'stream=~"([A-Z_|]+)"', alerts()[alert]["expr"])
    assert watched is not None
    assert set(watched.group(1).split("|")) == refusing
