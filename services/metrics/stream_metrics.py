"""Metrics of streams. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True)
class StreamSize:
    """A stream as its leader describes it.

    Attributes:
        messages: stored.
        stored_bytes: stored, in one copy.
        max_bytes: that may be stored; None without a limit.
        copies: that there should be.
        current_copies: that are up to date and there.
    """

    stream: str
    messages: int
    stored_bytes: int
    max_bytes: int | None
    copies: int
    current_copies: int


def stream_metrics(sizes: Iterable[StreamSize]) -> Iterator[Metric]:
    """All metrics of streams."""
    families = {
        field: GaugeMetricFamily(f"forebay_stream_{name}", help_text, labels=["stream"])
        for field, name, help_text in (
            ("messages", "messages", "Messages stored."),
            ("stored_bytes", "bytes", "Bytes stored, in one copy."),
            ("max_bytes", "max_bytes", "Bytes that may be stored."),
            ("copies", "copies", "Copies that there should be."),
            ("current_copies", "current_copies", "Copies that are up to date and there."),
        )
    }
    for size in sizes:
        for field, family in families.items():
            value = getattr(size, field)
            if value is not None:
                family.add_metric([size.stream], value)
    yield from families.values()
