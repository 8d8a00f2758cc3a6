"""Traces: sampled as the standard variables say, and free when they are off."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.runtime import telemetry

SAMPLED = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An endpoint where nobody listens; what is made there is never sent in time."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    yield monkeypatch
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    telemetry.configure("test")


def is_sampled(traceparent: str) -> bool:
    """Bit 0 of the flags; bit 1 says that the trace id is random."""
    return bool(int(traceparent.rsplit("-", 1)[1], 16) & 1)


def root(carrier: dict[str, str] | None = None) -> telemetry.ActiveSpan:
    span = telemetry.span("work", "INTERNAL", carrier or {})
    assert span is not None
    return span


def test_everything_is_sampled_unless_told_otherwise(exporter: pytest.MonkeyPatch) -> None:
    telemetry.configure("test")
    assert is_sampled(root().traceparent)


def test_a_ratio_of_nothing_samples_no_new_trace_but_goes_on_with_a_sampled_one(
    exporter: pytest.MonkeyPatch,
) -> None:
    exporter.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    exporter.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    telemetry.configure("test")
    assert not is_sampled(root().traceparent)
    assert is_sampled(root({"traceparent": SAMPLED}).traceparent)


def test_a_context_that_is_not_sampled_travels_on_with_what_vendors_put_into_it(
    exporter: pytest.MonkeyPatch,
) -> None:
    telemetry.configure("test")
    unsampled = SAMPLED[:-2] + "00"
    span = root({"traceparent": unsampled, "tracestate": "vendor=1"})
    assert not span.sampled
    assert span.trace_id == telemetry.trace_id(unsampled)
    assert not is_sampled(span.traceparent)
    assert span.tracestate == "vendor=1"


def test_what_would_not_be_recorded_is_known_before_it_is_described(
    exporter: pytest.MonkeyPatch,
) -> None:
    unsampled = SAMPLED[:-2] + "02"
    telemetry.configure("test")
    assert telemetry.records(SAMPLED)
    assert telemetry.records("")
    assert not telemetry.records(unsampled)
    # A sampler that asks no parent may take what its parent did not.
    exporter.setenv("OTEL_TRACES_SAMPLER", "always_on")
    telemetry.configure("test")
    assert telemetry.records(unsampled)
    exporter.setenv("OTEL_SDK_DISABLED", "true")
    telemetry.configure("test")
    assert not telemetry.records(SAMPLED)


def test_whoever_gives_the_ids_of_a_span_gets_them_and_the_next_has_others(
    exporter: pytest.MonkeyPatch,
) -> None:
    telemetry.configure("test")
    given = telemetry.span("work", "INTERNAL", {}, ids=(7, 9))
    assert given is not None
    assert given.traceparent.startswith(f"00-{7:032x}-{9:016x}-")
    assert root().trace_id != f"{7:032x}"


def test_a_description_is_short_however_much_a_model_says(exporter: pytest.MonkeyPatch) -> None:
    telemetry.configure("test")
    span = root()
    span.end("INTERNAL", "x" * 10_000)
    said = span._span.status.description
    assert len(said) == telemetry.MAX_DESCRIPTION_CHARACTERS


def test_the_sdk_can_be_disabled(exporter: pytest.MonkeyPatch) -> None:
    exporter.setenv("OTEL_SDK_DISABLED", "true")
    telemetry.configure("test")
    assert not telemetry.enabled()
    assert telemetry.span("work", "INTERNAL", {}) is None


@pytest.mark.parametrize("service", ["router", "node_agent", "metrics", "autoscaler"])
def test_off_not_even_the_library_is_imported(service: str) -> None:
    program = (
        f"import sys, services.{service}.main as main\n"
        "from services.runtime import telemetry\n"
        "telemetry.configure('test')\n"
        "sys.exit('opentelemetry.sdk' in sys.modules)\n"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("text", ["", "junk", "00-zz-0123456789abcdef-01", SAMPLED + "x"])
def test_what_is_no_traceparent_has_no_trace_id(text: str) -> None:
    assert telemetry.trace_id(text) is None
