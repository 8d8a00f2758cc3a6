"""Pure: which spans of Triton are ours: those of traces that were just sent into it.

A replica runs code of its users, which reaches whatever Triton reaches. So that it cannot write
into traces of others, or fill the collector, a span counts only if this agent has lately called
this replica in this trace, and only so many spans for each call.
"""

from collections import OrderedDict
from dataclasses import dataclass

MAX_CALLS = 20_000
"""Traces that are remembered: for ten seconds at 2,000 traced calls in a second, where Triton sends
its spans within one or two."""

SPANS_PER_CALL = 64
"""A model makes 3; an ensemble 2 more for each model in it."""


@dataclass(slots=True)
class _Called:
    deployment: str
    spans_left: int


class RecentCalls:
    """Traced calls of this node's Tritons."""

    def __init__(self, max_calls: int = MAX_CALLS) -> None:
        """None yet; the oldest is forgotten when there are more than `max_calls`."""
        self._max_calls = max_calls
        self._called: OrderedDict[tuple[str, str], _Called] = OrderedDict()

    def note(self, trace_id: str, replica_id: str, deployment: str) -> None:
        """Takes note of a call.

        Args:
            trace_id: 32 hexadecimal digits.
            replica_id: whose Triton is called.
            deployment: of the replica.
        """
        key = (trace_id, replica_id)
        before = self._called.pop(key, None)
        left = before.spans_left if before is not None else 0
        self._called[key] = _Called(deployment, left + SPANS_PER_CALL)
        if len(self._called) > self._max_calls:
            self._called.popitem(last=False)

    def take(self, trace_id: str, replica_id: str) -> str | None:
        """The deployment that a span belongs to; None if it is not ours, or one too many."""
        called = self._called.get((trace_id, replica_id))
        if called is None or called.spans_left <= 0:
            return None
        called.spans_left -= 1
        return called.deployment
