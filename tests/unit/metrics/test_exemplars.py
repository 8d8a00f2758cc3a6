"""Exemplars on their way from an agent's report to what Prometheus reads."""

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import Exemplar as LibraryExemplar
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from forebay.v1.node_pb2 import Histogram as HistogramMessage
from services.metrics import exemplars, report_check
from services.metrics.histogram_text import Durations as Told
from services.metrics.histogram_text import histogram_text
from services.metrics.loads import Durations
from services.metrics.report_check import Refusal, ReportError
from services.metrics.window import Exemplar, Histogram

A, B = "a" * 32, "b" * 32


def histogram(counts: tuple[int, ...], *traced: Exemplar) -> Histogram:
    return Histogram((0.1, 1.0), counts, 1.0, traced)


def message(value_s: float = 0.5, trace_id: str = A, count: int = 1) -> HistogramMessage:
    made = HistogramMessage(bounds_s=[0.1, 1], counts=[1, 0, 0])
    for _ in range(count):
        made.exemplars.add(bucket=0, value_s=value_s, trace_id=trace_id)
    return made


def test_the_last_one_heard_of_in_a_bucket_is_kept_whichever_replica_it_is_of() -> None:
    kept = Durations(30)
    kept.add(1.0, None, histogram((1, 1, 0), Exemplar(0.05, A), Exemplar(0.5, A)))
    kept.add(2.0, None, histogram((0, 1, 0), Exemplar(0.7, B)))
    assert kept.exemplars == {0: (Exemplar(0.05, A), 1.0), 1: (Exemplar(0.7, B), 2.0)}


def test_one_that_is_reported_again_is_not_news() -> None:
    kept = Durations(30)
    first = histogram((0, 1, 0), Exemplar(0.5, A))
    kept.add(1.0, None, first)
    kept.add(2.0, None, histogram((0, 1, 0), Exemplar(0.7, B)))
    kept.add(3.0, first, histogram((1, 1, 0), Exemplar(0.5, A)))
    assert kept.exemplars == {1: (Exemplar(0.7, B), 2.0)}


def test_there_is_at_most_one_for_each_bucket_of_the_deployment() -> None:
    kept = Durations(30)
    kept.add(1.0, None, histogram((1, 0, 0)))
    fine = tuple(Exemplar(0.001 * n, A) for n in range(90))
    kept.add(2.0, None, Histogram(tuple(0.001 * n for n in range(90)), (1,) * 91, 1.0, fine))
    assert len(kept.exemplars) == 1


def test_a_histogram_without_traces_keeps_nothing() -> None:
    assert exemplars.read(HistogramMessage(bounds_s=[0.1], counts=[1, 1])) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        message(value_s=-1.0),
        message(value_s=float("nan")),
        message(value_s=float("inf")),
        message(trace_id="A" * 32),
        message(trace_id='"} 1\nforebay_made_up 1'),
        message(count=4),
    ],
)
def test_one_that_no_agent_could_send_refuses_the_report(wrong: HistogramMessage) -> None:
    with pytest.raises(ReportError, match=r"service_time\.exemplars") as caught:
        report_check.histogram(wrong, None, "service_time")
    assert caught.value.reason is Refusal.HISTOGRAM
    assert "made_up" not in str(caught.value)


class OneHistogram(Collector):
    """The same in prometheus_client's own words."""

    def collect(self) -> list[Metric]:
        family = HistogramMetricFamily("waits_seconds", "Waits.", labels=["deployment"])
        traced = LibraryExemplar({"trace_id": A}, 0.5, 1000.25)
        buckets = [("0.1", 1), ("1.0", 3, traced), ("+Inf", 3)]
        family.add_metric(["add"], buckets=buckets, sum_value=1.5)
        return [family]


def test_text_says_what_the_library_would_say() -> None:
    told = Told(Histogram((0.1, 1.0), (1, 2, 0), 1.5), {1: (0.5, A, 1000.25)})
    own = "".join(histogram_text("waits_seconds", "Waits.", {"add": told}, True)) + "# EOF\n"
    registry = CollectorRegistry()
    registry.register(OneHistogram())
    expected = generate_latest(registry).decode()
    assert list(text_string_to_metric_families(own)) == list(
        text_string_to_metric_families(expected)
    )
