"""Which decision replicas come from."""

import asyncio
from collections.abc import Iterator

import pytest

from services.autoscaler import origins
from services.autoscaler.origins import NONE, Origins
from services.runtime import telemetry


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An endpoint where nobody listens; what is made there is never sent in time."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    telemetry.configure("autoscaler")
    yield
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    telemetry.configure("autoscaler")


def test_the_origin_is_the_last_decision_that_changed_the_target() -> None:
    known = Origins()
    assert known.of("add") is NONE
    known.decided("add", None, 0, "new").named("one")
    known.decided("add", 0, 2, "from zero").named("two")
    known.decided("add", 2, 2, "2 for now").named("three")
    assert known.of("add").name == "two"
    known.decided("add", 2, 1, "fewer").named("four")
    assert known.of("add").name == "four"
    assert known.of("other") is NONE


def test_a_decision_that_changed_nothing_is_an_origin_where_no_other_is_known() -> None:
    known = Origins()
    known.decided("add", 2, 2, "2 for now").named("one")
    known.decided("add", 2, 2, "2 for now").named("two")
    assert known.of("add").name == "one"
    known.clear()
    assert known.of("add") is NONE


async def test_waits_for_a_name_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "NAMED_WITHIN_S", 30.0)
    known = Origins()
    made = known.decided("add", 0, 1, "from zero")
    waiting = asyncio.ensure_future(known.wait_named(["add", "other"]))
    await asyncio.sleep(0)
    assert not waiting.done()
    made.named("one")
    await waiting
    await known.wait_named(["add"])
    known.decided("late", 0, 1, "from zero")
    monkeypatch.setattr(origins, "NAMED_WITHIN_S", 0.0)
    await known.wait_named(["late"])
    # One that was dropped has no name, and nobody waits for it.
    known.decided("dropped", 0, 1, "from zero").named("")
    monkeypatch.setattr(origins, "NAMED_WITHIN_S", 30.0)
    await known.wait_named(["dropped"])


def test_without_tracing_there_is_no_span() -> None:
    assert Origins().decided("add", 0, 1, "from zero").traceparent == ""


def test_a_rise_has_a_span_and_a_fall_has_none(tracing: None) -> None:
    known = Origins()
    rise = known.decided("add", 0, 1, "from zero")
    assert telemetry.trace_id(rise.traceparent)
    rise.named("deployments/add/decisions/1")
    assert known.of("add").traceparent == rise.traceparent
    assert known.decided("add", 1, 0, "none for long").traceparent == ""
