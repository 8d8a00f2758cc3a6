"""The mesh's load for Prometheus. docs/metrics.md says what to do about each metric.

Everything is read from one snapshot at each scrape, so that a series vanishes together with the
deployment, node or GPU it speaks of, and what is not known is absent rather than zero.

What changes is read on the event loop, which takes 0.2 s with 10,000 deployments; the rest, which
takes seconds, needs nothing that changes and may be done in another thread.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from forebay.v1.metrics_pb2 import Snapshot
from services.metrics import loads
from services.metrics.declared import Declared
from services.metrics.histogram_text import Durations, histogram_text
from services.metrics.load_metrics import load_metrics
from services.metrics.node_metrics import node_metrics
from services.metrics.snapshots import Mesh
from services.metrics.stream_metrics import StreamSize, stream_metrics
from services.runtime.clock import Clock
from services.wire import names

_OPENMETRICS = "application/openmetrics-text"
_EOF = b"# EOF\n"

CLOCK_TOLERANCE_S = 1.0
"""How far the wall clock may move before exemplars follow it. Between two scrapes theirs must stay
the same: Prometheus takes one with another instant for another exemplar."""


@dataclass(frozen=True, slots=True)
class Look:
    """All that is exposed, of one instant; it changes no more."""

    snapshot: Snapshot
    attempts: Mapping[str, Mapping[str, int]]
    queue_wait: Mapping[str, Durations]
    service_time: Mapping[str, Durations]
    declared: Mapping[str, Declared]
    streams: list[StreamSize]
    refused: Mapping[str, int]
    nats_connected: bool


class Exposition:
    """Looks at the mesh for each scrape."""

    def __init__(
        self,
        mesh: Mesh,
        clock: Clock,
        nats_connected: Callable[[], bool],
        declared: Callable[[], Mapping[str, Declared]],
        streams: Callable[[], list[StreamSize]],
    ) -> None:
        """Looks at nothing before it is asked.

        Args:
            mesh: what is known of it.
            clock: the one that the mesh goes by.
            nats_connected: whether this process is connected to NATS.
            declared: what deployments declare, by id.
            streams: what is known of the streams.
        """
        self._mesh = mesh
        self._clock = clock
        self._nats_connected = nats_connected
        self._declared = declared
        self._streams = streams
        self._wall_offset_s = clock.wall_s() - clock.monotonic_s()

    def look(self) -> Look:
        """What there is at this instant; to be called on the event loop."""
        offset_s = self._clock.wall_s() - self._clock.monotonic_s()
        if abs(offset_s - self._wall_offset_s) > CLOCK_TOLERANCE_S:
            self._wall_offset_s = offset_s
        snapshot = self._mesh.snapshot()
        attempts: dict[str, dict[str, int]] = {}
        queue_wait: dict[str, Durations] = {}
        service_time: dict[str, Durations] = {}
        for load in snapshot.deployments:
            deployment = names.deployment_id(load.deployment)
            totals = self._mesh.totals(deployment)
            if totals is not None:
                attempts[deployment] = dict(totals.attempts)
                self._add(queue_wait, deployment, totals.queue_wait)
                self._add(service_time, deployment, totals.service_time)
        refused = self._mesh.refusals.counts
        return Look(
            snapshot,
            attempts,
            queue_wait,
            service_time,
            self._declared(),
            self._streams(),
            {reason.value: count for reason, count in refused.items()},
            self._nats_connected(),
        )

    def _add(self, to: dict[str, Durations], deployment: str, seen: loads.Durations) -> None:
        if seen.total is None:
            return
        exemplars = {
            bucket: (exemplar.value_s, exemplar.trace_id, self._wall_offset_s + at_s)
            for bucket, (exemplar, at_s) in seen.exemplars.items()
        }
        to[deployment] = Durations(seen.total.histogram(), exemplars)


class _Looked(Collector):
    """The metrics of one look."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        """Nothing in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        look = self._look
        yield GaugeMetricFamily(
            "forebay_nats_connected",
            "Whether the service is connected to NATS.",
            value=float(look.nats_connected),
        )
        yield from load_metrics(look.snapshot, look.attempts, look.declared)
        yield from node_metrics(look.snapshot)
        yield from stream_metrics(look.streams)
        refused = CounterMetricFamily(
            "forebay_reports_refused", "Reports that were refused, by reason.", labels=["reason"]
        )
        for reason, count in look.refused.items():
            refused.add_metric([reason], count)
        yield refused


def encode(look: Look, accept: str = "") -> tuple[bytes, str]:
    """A look in the words of Prometheus; may take seconds, and be called in any thread.

    Args:
        look: what there is.
        accept: the request's header; whoever names OpenMetrics gets it, with exemplars, and all
            others Prometheus' text format 0.0.4.

    Returns:
        The text and its content type.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Looked(look))
    if _OPENMETRICS not in accept:
        return generate_latest(registry) + _histograms(look, False), CONTENT_TYPE_PLAIN_0_0_4
    text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text.removesuffix(_EOF) + _histograms(look, True) + _EOF, openmetrics.CONTENT_TYPE_LATEST


def _histograms(look: Look, with_exemplars: bool) -> bytes:
    metrics = (
        ("forebay_queue_wait_seconds", "Time from stored to delivered.", look.queue_wait),
        ("forebay_service_time_seconds", "Time inside the replica.", look.service_time),
    )
    return b"".join(
        "".join(histogram_text(name, help_text, seen, with_exemplars)).encode()
        for name, help_text, seen in metrics
    )
