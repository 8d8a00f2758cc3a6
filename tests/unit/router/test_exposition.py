"""What a router says of itself to Prometheus."""

import re
import urllib.request
from pathlib import Path

import pytest

from services.router.counters import RouterCounters
from services.router.exposition import RouterCollector, serve
from services.runtime import ports
from tests.support.free_port import free_address

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


def scraped(counters: RouterCounters, deployments: list[str]) -> str:
    address = free_address()
    stop = serve(address, RouterCollector(counters, lambda: 3, lambda: deployments))
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    finally:
        stop()


def test_what_is_documented_is_what_is_exposed() -> None:
    routers = DOCUMENT.read_text().partition("## The routers")[2]
    assert dict(_ROW.findall(routers)) == dict(_TYPE.findall(scraped(RouterCounters(), [])))


def test_calls_are_told_by_deployment_and_outcome() -> None:
    counters = RouterCounters()
    counters.calls["one", "ok"] += 2
    counters.calls["", "not_found"] += 1
    text = scraped(counters, ["one"])
    assert 'forebay_router_calls_total{deployment="one",outcome="ok"} 2.0' in text
    assert 'forebay_router_calls_total{deployment="",outcome="not_found"} 1.0' in text
    assert "forebay_router_pending_calls 3.0" in text


def test_submitted_tasks_are_told_by_deployment_and_outcome() -> None:
    counters = RouterCounters()
    counters.submitted_tasks["one", "ok"] += 3
    counters.submitted_tasks["gone", "ok"] += 1
    text = scraped(counters, ["one"])
    assert 'forebay_router_submitted_tasks_total{deployment="one",outcome="ok"} 3.0' in text
    assert "gone" not in text
    assert not counters.submitted_tasks["gone", "ok"]


def test_a_deleted_deployment_takes_its_series_along() -> None:
    counters = RouterCounters()
    counters.calls["gone", "ok"] += 2
    assert "gone" not in scraped(counters, ["one"])
    assert not counters.calls


def test_a_port_in_use_is_told() -> None:
    address = free_address()
    collector = RouterCollector(RouterCounters(), lambda: 0, list)
    stop = serve(address, collector)
    try:
        with pytest.raises(ports.AddressError, match="Stop what uses the port"):
            serve(address, collector)
    finally:
        stop()
