"""The Grafana dashboards: fresh, legal, and about metrics that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards import __main__ as writing
from tests.contract.tree import ROOT

DEPLOY = ROOT / "deploy"
FILES = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PROVISIONING = DEPLOY / "grafana" / "provisioning"
UIDS = {"mesh.json": "forebay-mesh", "deployment.json": "forebay-deployment"}
COLUMNS = 24

# What Grafana fills in, with something of its kind.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$__interval": "15s", "$deployment": "add"}

# Of Prometheus itself.
FOREIGN = {"up", "ALERTS"}

_METRIC = re.compile(r"\b(?:deployment:)?(?:forebay|process)_[a-z0-9_]+(?::[a-z0-9_]+)?")

by_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def _panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _expressions(board: dict[str, Any]) -> list[str]:
    found = [target["expr"] for panel in _panels(board) for target in panel["targets"]]
    return found + [annotation["expr"] for annotation in board["annotations"]["list"]]


def _lost(value: Any, again: Any, where: str) -> Iterator[str]:
    """Where something of a value is missing or other in another; more in the other is no loss."""
    if isinstance(value, dict) and isinstance(again, dict):
        for name, inner in value.items():
            yield from _lost(inner, again.get(name), f"{where}.{name}")
    elif isinstance(value, list) and isinstance(again, list) and len(value) == len(again):
        for number, (inner, other) in enumerate(zip(value, again, strict=True)):
            yield from _lost(inner, other, f"{where}[{number}]")
    elif value != again:
        yield where


def test_dashboards_are_fresh() -> None:
    written = {file: file.read_text() for file in FILES}
    assert written == writing.files(), "run `make docs`"


@by_file
def test_is_what_grafanas_model_says(file: Path) -> None:
    """Reading it as Grafana's own types and writing it again loses nothing that is in them."""
    register_default_plugins()
    board = _read(file)
    for annotation in board["annotations"]["list"]:
        # The Prometheus data source's own, which the model of dashboards does not have.
        for name in ("step", "titleFormat", "tagKeys"):
            del annotation[name]
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert not list(_lost(board, again, ""))


@by_file
def test_is_found_and_current(file: Path) -> None:
    board = _read(file)
    assert board["uid"] == UIDS[file.name]
    assert board["schemaVersion"] >= 41
    assert "forebay" in board["tags"]


@by_file
def test_panels_have_ids_units_words_and_room(file: Path) -> None:
    board = _read(file)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= COLUMNS, panel["title"]
        taken |= cells
    for panel in _panels(board):
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] in ("timeseries", "stat"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@by_file
def test_no_gap_is_drawn_over(file: Path) -> None:
    plots = [panel for panel in _panels(_read(file)) if panel["type"] == "timeseries"]
    assert plots
    for panel in plots:
        assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False, panel["title"]


@by_file
def test_names_no_data_source(file: Path) -> None:
    board = _read(file)
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["jaeger"]["query"] == "jaeger"

    def check(value: Any) -> None:
        if isinstance(value, dict):
            source = value.get("datasource")
            assert source is None or source == {"type": "prometheus", "uid": "${datasource}"}
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(board)


def test_lead_to_each_other_and_to_traces() -> None:
    links = {file.name: [link["url"] for link in _read(file)["links"]] for file in FILES}
    assert any(url.startswith("/d/forebay-deployment") for url in links["mesh.json"])
    assert any(url.startswith("/d/forebay-mesh") for url in links["deployment.json"])
    for urls in links.values():
        assert any("${jaeger}" in url for url in urls)
    table = next(panel for panel in _panels(_read(FILES[1])) if panel["type"] == "table")
    assert "/d/forebay-deployment?var-deployment=" in json.dumps(table)


@pytest.mark.parametrize("metric", ["forebay_queue_wait_seconds", "forebay_service_time_seconds"])
def test_durations_show_exemplars(metric: str) -> None:
    board = _read(DEPLOY / "grafana" / "dashboards" / "deployment.json")
    targets = [target for panel in _panels(board) for target in panel["targets"]]
    assert any(metric in target["expr"] and target.get("exemplar") for target in targets)


def test_exemplars_lead_to_jaeger() -> None:
    file = PROVISIONING / "datasources" / "forebay.yaml"
    sources = {s["type"]: s for s in yaml.safe_load(file.read_text())["datasources"]}
    (destination,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination == {"name": "trace_id", "datasourceUid": sources["jaeger"]["uid"]}


@by_file
def test_metrics_exist(file: Path) -> None:
    documented = set(_METRIC.findall((ROOT / "docs" / "metrics.md").read_text()))
    rules = (DEPLOY / "prometheus" / "rules").glob("*.yaml")
    recorded = {
        rule["record"]
        for path in rules
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    known = documented | {f"{name}_bucket" for name in documented} | recorded | FOREIGN
    board = _read(file)
    asked = {name for expr in _expressions(board) for name in _METRIC.findall(expr)}
    queries = [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    asked |= {name for query in queries for name in _METRIC.findall(str(query))}
    assert asked
    assert not asked - known


@by_file
def test_expressions_are_promql(file: Path, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool: install Debian's package prometheus")
    rules = []
    for number, expr in enumerate(_expressions(_read(file))):
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        assert "$" not in expr
        rules.append({"record": f"panel:{number}", "expr": expr})
    checked = tmp_path / "rules.yaml"
    checked.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(checked)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
