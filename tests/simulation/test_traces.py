"""Traces as people have them, and what is said of wrong ones."""

from pathlib import Path

import numpy as np
import pytest

from services.autoscaler.simulation.service_times import log_normal
from services.autoscaler.simulation.traces import TraceError, durations_of, trace_of

AZURE = Path(__file__).resolve().parents[3] / "shared" / "traces"

COUNTS = "HashOwner,HashApp,HashFunction,Trigger,480,481,482\na,b,c,http,2,0,3\na,b,d,timer,0,1,0\n"


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_plain_seconds_are_arrivals_in_any_order() -> None:
    trace = trace_of(lines("# recorded\n3\n0.5\n\n1e1\n"), "t")
    assert trace.series[0].times_s == (0.5, 3.0, 10.0)
    assert trace.duration_s == 10.0


def test_timestamps_count_from_the_first() -> None:
    text = "TIMESTAMP,Tokens\n2023-11-16 18:15:46.6805900,3\n2023-11-16 18:15:50.9951690,4\n"
    trace = trace_of(lines(text), "t")
    assert trace.series[0].times_s == pytest.approx((0.0, 4.314579), abs=1e-6)


def test_each_row_of_counts_is_a_deployment() -> None:
    trace = trace_of(lines(COUNTS), "t")
    assert [series.key for series in trace.series] == [("a", "b", "c"), ("a", "b", "d")]
    assert [series.count for series in trace.series] == [5, 1]
    assert trace.duration_s == 180.0


def test_counts_stay_within_their_minutes() -> None:
    series = trace_of(lines(COUNTS), "t").series[0]
    for evenly in (False, True):
        arrivals = series.arrivals((1,), evenly)
        assert np.all(np.diff(arrivals) >= 0)
        assert [int(at_s // 60) for at_s in arrivals] == [0, 0, 2, 2, 2]
    assert list(series.arrivals((0,), evenly=True)[:2]) == [15.0, 45.0]
    assert list(series.arrivals((7,))) == list(series.arrivals((7,)))
    assert list(series.arrivals((7,))) != list(series.arrivals((8,)))


def test_service_times_follow_the_percentiles_of_the_file() -> None:
    header = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum"
    header += ",percentile_Average_50,percentile_Average_99"
    found = durations_of(
        lines(f"{header}\na,b,c,300,9,10,9000,200,2000\na,b,d,40,1,40,40,40,40\n"), "d"
    )
    draws = found["a", "b", "c"].draws((3,))
    drawn = np.array([next(draws) for _ in range(20_000)])
    assert np.quantile(drawn, 0.5) == pytest.approx(0.2, rel=0.05)
    assert np.quantile(drawn, 0.99) == pytest.approx(2.0, rel=0.1)
    assert drawn.min() >= 0.01
    assert drawn.max() <= 9.0
    assert next(found["a", "b", "d"].draws((3,))) == 0.04


def test_two_percentiles_make_a_distribution() -> None:
    draws = log_normal(0.5, 2.0).draws((1,))
    drawn = np.array([next(draws) for _ in range(20_000)])
    assert np.quantile(drawn, [0.5, 0.95]) == pytest.approx([0.5, 2.0], rel=0.06)


def test_recorded_durations_are_drawn_from() -> None:
    draws = durations_of(lines("0.1\n0.2\n"), "d")[()].draws((1,))
    assert {next(draws) for _ in range(100)} == {0.1, 0.2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t:1: the file is empty"),
        ("1\nsoon\n", "t:2: 'soon': it must be an instant in seconds"),
        ("1\n\n# so\n-3\n", "t:4: '-3': it must be an instant in seconds"),
        ("nan\n", "t:1: 'nan'"),
        ("TIMESTAMP\nyesterday\n", "t:2: TIMESTAMP = 'yesterday': it must be an instant in ISO"),
        ("TIMESTAMP,x\n", "t: no request arrives in it"),
        ("f,1,2\na,3\n", "t:2: 2 columns, the header has 3"),
        ("f,1,2\na,3,x\n", "t:2: minute 2: 'x': it must be a number of requests"),
        ("f,1,2\na,-1,3\n", "t:2: minute 1: '-1'"),
        ("f,1,2\na,0,0\n", "t: no request arrives in it"),
        ("f,1,2\na,90000000,90000000\n", "t: 180000000 requests arrive; there may be 100000000"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(TraceError) as caught:
        trace_of(lines(text), "t")
    assert str(caught.value).startswith(said)


def test_wrong_durations_are_refused_with_their_line() -> None:
    with pytest.raises(TraceError, match="d:2: 'x': it must be a duration in seconds"):
        durations_of(["1", "x"], "d")
    with pytest.raises(TraceError, match="d:2: '-4': it must be Average in milliseconds"):
        durations_of(["HashFunction,Average", "f,-4"], "d")


@pytest.mark.skipif(not AZURE.is_dir(), reason="the public traces are not here")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("azure_llm_2023_code.csv", 8_819),
        ("azure_llm_2023_conv.csv", 19_366),
        ("azure_functions_2019_500_invocations.csv", 3_037_902),
    ],
)
def test_public_traces_are_read(name: str, count: int) -> None:
    trace = trace_of((AZURE / name).read_text().splitlines(), name)
    assert sum(series.count for series in trace.series) == count
