"""Metrics over HTTP, from a thread of their own."""

import asyncio
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from services.runtime import ports, prometheus
from services.runtime.prometheus import Exposed, expose


class One(Collector):
    """One metric, and the thread it was asked in."""

    def __init__(self) -> None:
        self.asked_in: list[int] = []

    def collect(self) -> Iterator[Metric]:
        self.asked_in.append(threading.get_ident())
        yield GaugeMetricFamily("forebay_answer", "One.", value=42)


def scraped(address: str, accept: str = "") -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


async def stopped(*exposed: Exposed) -> None:
    for one in exposed:
        await one.stop()


async def test_both_formats_are_served_on_the_port_that_was_chosen() -> None:
    exposed = expose("127.0.0.1:0", One())
    try:
        assert not exposed.address.endswith(":0")
        assert exposed.listening("router_http") == {"router_http": exposed.address}
        assert "forebay_answer 42.0" in await asyncio.to_thread(scraped, exposed.address)
        accept = "application/openmetrics-text;version=1.0.0"
        text = await asyncio.to_thread(scraped, exposed.address, accept)
        names = {family.name for family in text_string_to_metric_families(text)}
        assert {"forebay_answer", "process_cpu_seconds"} <= names
    finally:
        await stopped(exposed)


async def test_nowhere_is_an_address_too() -> None:
    exposed = expose(None, One())
    assert not exposed.address
    assert not exposed.listening("router_http")
    await stopped(exposed)


async def test_a_port_in_use_is_told() -> None:
    exposed = expose("127.0.0.1:0", One())
    try:
        with pytest.raises(ports.AddressError, match="Stop what uses the port"):
            expose(exposed.address, One())
    finally:
        await stopped(exposed)


async def test_what_changes_is_looked_at_on_the_event_loop() -> None:
    look = prometheus.on_loop(threading.get_ident)
    assert await asyncio.to_thread(look) == threading.get_ident()
