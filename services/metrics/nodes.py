"""Which nodes there are and what each last reported. Pure: time is an argument.

A node appears with its first report, is OFFLINE once it has been silent for the grace period, and
is forgotten after FORGET_AFTER_S of silence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from forebay.v1.node_pb2 import Histogram as HistogramMessage
from forebay.v1.node_pb2 import Node, NodeRegistration, NodeReport, ReplicaStatus
from services.metrics.loads import ReplicaCounts
from services.metrics.window import Histogram
from services.wire import names, outcomes

MAX_NODES = 10_000
MAX_REPLICAS_PER_NODE = 4096
MAX_GPUS_PER_NODE = 256
MAX_HISTOGRAM_BOUNDS = 200
FORGET_AFTER_S = 3600.0

_OUTCOMES = frozenset(outcomes.LABELS.values())


class ReportError(ValueError):
    """A registration or report that cannot be taken; the text says why."""


class TooManyNodesError(Exception):
    """The table is full."""


@dataclass(slots=True)
class _Record:
    registration: NodeRegistration
    report: NodeReport | None
    report_s: float
    report_wall_s: float


class NodeTable:
    """The last report of every node."""

    def __init__(self, grace_s: float) -> None:
        """An empty table.

        Args:
            grace_s: how long a node may be silent before it is OFFLINE.
        """
        self._grace_s = grace_s
        self._records: dict[str, _Record] = {}

    def register(self, now_s: float, registration: NodeRegistration) -> tuple[str, bool]:
        """Takes note of a new session.

        Returns:
            The node's id, and whether the node is known and its agent was started anew since.

        Raises:
            ReportError: if the registration is not valid.
            TooManyNodesError: if there is no room for one more node.
        """
        try:
            node = names.node_id(registration.node)
        except names.InvalidNameError as error:
            raise ReportError(f"registration.node: {error}") from error
        if not registration.instance_id:
            raise ReportError("registration.instance_id is empty; it must be unique to the process")
        record = self._records.get(node)
        if record is None:
            if len(self._records) >= MAX_NODES:
                raise TooManyNodesError(f"there are {MAX_NODES} nodes already; no more are taken")
            self._records[node] = _Record(registration, None, now_s, 0.0)
            return node, False
        anew = record.registration.instance_id != registration.instance_id
        record.registration = registration
        return node, anew

    def report(self, now_s: float, wall_s: float, node: str, report: NodeReport) -> bool:
        """Keeps a report in place of the one before.

        Returns:
            Whether it is the first one of this node.

        Raises:
            ReportError: if the report is not valid; nothing of it is kept.
        """
        _check(report)
        record = self._records.get(node)
        if record is None:
            raise ReportError(f"node {node} was forgotten: register again")
        first = record.report is None
        record.report, record.report_s, record.report_wall_s = report, now_s, wall_s
        return first

    def forget(self, now_s: float) -> None:
        """Forgets nodes that have been silent for long."""
        silent = [n for n, r in self._records.items() if now_s - r.report_s > FORGET_AFTER_S]
        for node in silent:
            del self._records[node]

    def ids(self) -> set[str]:
        """Ids of all nodes, those included that have not reported yet."""
        return set(self._records)

    def nodes(self, now_s: float) -> list[Node]:
        """All nodes that have reported, by name."""
        listed = (self.node(now_s, node) for node in sorted(self._records))
        return [node for node in listed if node is not None]

    def node(self, now_s: float, node: str) -> Node | None:
        """A node; None if it is unknown or has not reported yet."""
        record = self._records.get(node)
        if record is None or record.report is None:
            return None
        report = record.report
        message = Node(
            name=names.node_name(node),
            slot_count=report.slot_count,
            gpus=report.gpus,
            replicas=report.replicas,
            state=self._state(now_s, record),
            applied_revision=report.applied_revision,
            agent_version=record.registration.agent_version,
            gpu_message=report.gpu_message,
        )
        message.last_report_time.FromNanoseconds(int(record.report_wall_s * 1e9))
        return message

    def age_s(self, now_s: float, node: str) -> float | None:
        """Seconds since a node last reported; None if it has not."""
        record = self._records.get(node)
        return None if record is None or record.report is None else now_s - record.report_s

    def holder(self, replica_id: str) -> str | None:
        """Id of the node that last reported a replica; the one heard last, if several did."""
        found = [
            (record.report_s, node)
            for node, record in self._records.items()
            if record.report is not None
            and any(replica.replica_id == replica_id for replica in record.report.replicas)
        ]
        return max(found)[1] if found else None

    def _state(self, now_s: float, record: _Record) -> Node.State:
        if now_s - record.report_s > self._grace_s:
            return Node.STATE_OFFLINE
        if record.report is not None and record.report.draining:
            return Node.STATE_DRAINING
        return Node.STATE_ACTIVE


def counts(replicas: Iterable[ReplicaStatus]) -> list[ReplicaCounts]:
    """What a report counts, as plain values.

    Outcomes this version does not know are left out: labels of metrics are a closed set.
    """
    return [
        ReplicaCounts(
            replica_id=replica.replica_id,
            deployment=names.deployment_id(replica.deployment),
            attempts={k: n for k, n in replica.attempt_counts.items() if k in _OUTCOMES},
            queue_wait=_histogram(replica.queue_wait),
            service_time=_histogram(replica.service_time),
        )
        for replica in replicas
    ]


def _histogram(message: HistogramMessage) -> Histogram | None:
    if not message.counts:
        return None
    return Histogram(tuple(message.bounds_s), tuple(message.counts), message.sum_s)


def _check(report: NodeReport) -> None:
    if len(report.replicas) > MAX_REPLICAS_PER_NODE:
        raise ReportError(f"report.replicas: {len(report.replicas)}, above {MAX_REPLICAS_PER_NODE}")
    if len(report.gpus) > MAX_GPUS_PER_NODE:
        raise ReportError(f"report.gpus: {len(report.gpus)}, above {MAX_GPUS_PER_NODE}")
    seen: set[str] = set()
    for replica in report.replicas:
        where = f"report.replicas[{names.quoted(replica.replica_id)}]"
        if not replica.replica_id or replica.replica_id in seen:
            raise ReportError(f"{where}: the id is empty or not unique")
        seen.add(replica.replica_id)
        try:
            names.deployment_id(replica.deployment)
        except names.InvalidNameError as error:
            raise ReportError(f"{where}.deployment: {error}") from error
        _check_histogram(replica.queue_wait, f"{where}.queue_wait")
        _check_histogram(replica.service_time, f"{where}.service_time")
        if any(count < 0 for count in replica.attempt_counts.values()):
            raise ReportError(f"{where}.attempt_counts: a count is negative")


def _check_histogram(histogram: HistogramMessage, where: str) -> None:
    bounds, buckets = histogram.bounds_s, histogram.counts
    if not bounds and not buckets:
        return
    if len(bounds) > MAX_HISTOGRAM_BOUNDS or len(buckets) != len(bounds) + 1:
        raise ReportError(
            f"{where}: {len(bounds)} bounds and {len(buckets)} counts; there must be one count "
            f"more than bounds, and at most {MAX_HISTOGRAM_BOUNDS} bounds"
        )
    if any(low >= high for low, high in pairwise(bounds)) or bounds[:1] < [0]:
        raise ReportError(f"{where}.bounds_s must ascend from at least 0")
    if any(count < 0 for count in buckets):
        raise ReportError(f"{where}.counts: a count is negative")
