"""What a replica counts, and the traces it remembers of it."""

from forebay.v1.envelope_pb2 import OUTCOME_OK
from services.node_agent.histogram import BOUNDS_S, REPORTS, DurationHistogram
from services.node_agent.tallies import Tallies

A, B = "a" * 32, "b" * 32


def test_each_bucket_remembers_the_last_trace_in_it() -> None:
    seen = DurationHistogram()
    seen.observe(0.3, A, 10.0)
    seen.observe(0.4, B, 11.5)
    seen.observe(900.0, A, 12.0)
    found = {
        (e.bucket, e.value_s, e.trace_id, e.observe_time.ToNanoseconds())
        for e in seen.to_proto().exemplars
    }
    half = BOUNDS_S.index(0.5)
    assert found == {
        (half, 0.4, B, 11_500_000_000),
        (len(BOUNDS_S), 900.0, A, 12_000_000_000),
    }


def test_what_is_not_traced_leaves_what_is_remembered() -> None:
    seen = DurationHistogram()
    seen.observe(0.3, A, 10.0)
    seen.observe(0.4)
    assert [e.trace_id for e in seen.to_proto().exemplars] == [A]


def test_without_traces_nothing_is_remembered() -> None:
    seen = DurationHistogram()
    for _ in range(3):
        seen.observe(0.3)
    assert not seen.to_proto().exemplars
    assert sum(seen.to_proto().counts) == 3


def test_a_trace_is_told_for_a_while_and_not_for_ever() -> None:
    seen = DurationHistogram()
    seen.observe(0.3, A, 10.0)
    for _ in range(REPORTS - 1):
        assert seen.to_proto().exemplars
    seen.observe(0.03, B, 11.0)
    assert [e.trace_id for e in seen.to_proto().exemplars] == [A, B]
    assert [e.trace_id for e in seen.to_proto().exemplars] == [B]
    assert sum(seen.to_proto().counts) == 2


def test_there_are_never_more_than_buckets() -> None:
    seen = DurationHistogram()
    for n in range(1000):
        seen.observe(n * 0.4, A, float(n))
    assert len(seen.to_proto().exemplars) <= len(BOUNDS_S) + 1


def test_a_wait_below_zero_counts_and_is_remembered_as_zero() -> None:
    tallies = Tallies()
    tallies.count(OUTCOME_OK, -0.2, A, 10.0)
    (exemplar,) = tallies.queue_wait.to_proto().exemplars
    assert (exemplar.bucket, exemplar.value_s) == (0, 0.0)
    assert tallies.attempts == {"ok": 1}


def test_both_durations_remember_their_traces() -> None:
    tallies = Tallies()
    tallies.count(OUTCOME_OK, 0.01, A, 10.0)
    tallies.served(0.3, B, 10.0)
    assert [e.trace_id for e in tallies.queue_wait.to_proto().exemplars] == [A]
    assert [e.trace_id for e in tallies.service_time.to_proto().exemplars] == [B]
