"""What a router says of itself to Prometheus."""

from prometheus_client import CollectorRegistry, generate_latest

from services.router.counters import RouterCounters
from services.router.exposition import RouterCollector


def scraped(counters: RouterCounters, deployments: list[str]) -> str:
    collector = RouterCollector(counters, lambda: 3, lambda: deployments, lambda: True)
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


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
