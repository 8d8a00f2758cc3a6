"""Spans of Triton count if this agent has lately called it in their trace, and not without end."""

from services.node_agent.traces.recent_calls import SPANS_PER_CALL, RecentCalls

TRACE, OTHER = "ab" * 16, "cd" * 16


def test_a_span_of_a_call_is_of_its_deployment() -> None:
    calls = RecentCalls()
    calls.note(TRACE, "echo-1", "echo")
    assert calls.take(TRACE, "echo-1") == "echo"


def test_a_replica_cannot_write_into_a_trace_that_did_not_call_it() -> None:
    calls = RecentCalls()
    calls.note(TRACE, "echo-1", "echo")
    calls.note(OTHER, "evil-1", "evil")
    assert calls.take(TRACE, "evil-1") is None
    assert calls.take("ef" * 16, "echo-1") is None


def test_a_call_has_so_many_spans_and_a_second_call_as_many_more() -> None:
    calls = RecentCalls()
    calls.note(TRACE, "echo-1", "echo")
    calls.note(TRACE, "echo-1", "echo")
    taken = [calls.take(TRACE, "echo-1") for _ in range(2 * SPANS_PER_CALL + 1)]
    assert taken == ["echo"] * (2 * SPANS_PER_CALL) + [None]


def test_the_oldest_calls_are_forgotten() -> None:
    calls = RecentCalls(max_calls=2)
    for number in range(3):
        calls.note(f"{number:032x}", "echo-1", "echo")
    found = [calls.take(f"{number:032x}", "echo-1") for number in range(3)]
    assert found == [None, "echo", "echo"]
