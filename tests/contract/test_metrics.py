"""The metrics that documents, rules and dashboards speak of are those that are exposed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector

from forebay.v1.deployment_pb2 import DeploymentStatus
from services.autoscaler.decision_counts import Counted
from services.autoscaler.exposition import AutoscalerCollector, Look
from services.router.counters import RouterCounters
from services.router.exposition import RouterCollector
from tests.contract.tree import ROOT, name_of
from tests.support.exposed import OPENMETRICS, exposed

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").rglob("*.json"))

SECTIONS = {
    "metrics": (
        "Each service",
        "Queues",
        "Deployments as declared",
        "Replicas",
        "Nodes and GPUs",
        "Streams",
        "The metrics service itself",
    ),
    "router": ("Each service", "The routers"),
    "autoscaler": ("Each service", "The autoscalers"),
}

_ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
_NAME = re.compile(r"\b(?:deployment:)?(?:forebay|process)_[a-z0-9_]+(?::[a-z0-9_]+)?\b")


def section(title: str) -> str:
    """A section of the document without its title."""
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def documented(service: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric of a service."""
    return {
        name: (kind, set(re.findall(r"`([a-z_]+)`", re.sub(r"\(.*?\)", "", labels))))
        for title in SECTIONS[service]
        for name, kind, labels in _ROW.findall(section(title))
    }


def text_of(collector: Collector, form: str) -> str:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(collector)
    encode = openmetrics if form else generate_latest
    return str(encode(registry).decode())


def text(service: str, form: str = "") -> str:
    """What a service exposes when everything is known."""
    if service == "metrics":
        return exposed(form)
    if service == "router":
        counters = RouterCounters()
        counters.calls["add", "ok"] += 1
        counters.submitted_tasks["add", "ok"] += 1
        collector = RouterCollector(counters, lambda: 3, lambda: ["add"], lambda: True)
        return text_of(collector, form)
    status = DeploymentStatus().SerializeToString()
    look = Look(True, True, 0.5, True, {"add": status}, {"add": Counted(1, 1, 1, 1.0)})
    return text_of(AutoscalerCollector(lambda: look), form)


def recorded() -> set[str]:
    """Series that rules record."""
    rules = (rule for file in RULES for rule in rules_of(file))
    return {rule["record"] for rule in rules if "record" in rule}


def rules_of(file: Path) -> Iterator[dict[str, str]]:
    for group in yaml.safe_load(file.read_text())["groups"]:
        yield from group["rules"]


def queries(found: object) -> Iterator[str]:
    """Everything in a dashboard that Prometheus is asked."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(found, list):
        for value in found:
            yield from queries(value)


def unknown(queried: str) -> set[str]:
    """Metrics of ours in a query that the document does not have."""
    known = {name for service in SECTIONS for name in documented(service)} | recorded()
    found = set(_NAME.findall(queried))
    return {
        name
        for name in found
        if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known
    }


@pytest.mark.parametrize("service", SECTIONS)
def test_documented_metrics_are_those_exposed_with_their_types(service: str) -> None:
    named = {name: kind for name, (kind, _) in documented(service).items()}
    assert named == dict(_TYPE.findall(text(service)))


@pytest.mark.parametrize("service", SECTIONS)
def test_documented_metrics_are_those_exposed_as_openmetrics(service: str) -> None:
    # There a counter is named without its suffix.
    named = {
        name.removesuffix("_total") if kind == "counter" else name: kind
        for name, (kind, _) in documented(service).items()
    }
    assert named == dict(_TYPE.findall(text(service, OPENMETRICS)))


@pytest.mark.parametrize("service", SECTIONS)
def test_documented_labels_are_those_exposed(service: str) -> None:
    shown = text(service)
    for name, (_, labels) in documented(service).items():
        series = re.search(rf"^{name}(?:_count)?(?:{{(.*)}})? ", shown, re.MULTILINE)
        assert series, f"{name} has no series"
        assert set(re.findall(r"(\w+)=", series.group(1) or "")) == labels, name


@pytest.mark.parametrize("service", SECTIONS)
def test_prometheus_finds_nothing_to_say_about_the_names(service: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: names are not linted; `apt install prometheus`")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(service),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if line.strip()]
    # Prometheus' own process metrics are named as they are everywhere.
    assert not [line for line in said if not line.startswith("process_")]


@pytest.mark.parametrize("file", RULES, ids=name_of)
def test_rules_ask_for_metrics_that_there_are(file: Path) -> None:
    assert not {name for rule in rules_of(file) for name in unknown(rule["expr"])}


@pytest.mark.parametrize("file", DASHBOARDS, ids=name_of)
def test_dashboards_ask_for_metrics_that_there_are(file: Path) -> None:
    asked = list(queries(json.loads(file.read_text())))
    assert not {name for query in asked for name in unknown(query)}


def test_recorded_series_are_documented() -> None:
    names = set(re.findall(r"`(deployment:[a-z0-9_:]+)`", section("Recorded by Prometheus")))
    others = re.findall(r"`(deployment:[a-z_]+:)p50_5m`, `…:p95_5m`, `…:p99_5m`", DOCUMENT)
    names |= {f"{name}{quantile}_5m" for name in others for quantile in ("p95", "p99")}
    assert names == recorded()
