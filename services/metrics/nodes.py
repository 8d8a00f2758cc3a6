"""Which nodes there are and what each last reported. Pure: time is an argument.

A node appears with its first report, is OFFLINE once it has been silent for the grace period, and
is forgotten after FORGET_AFTER_S of silence. A report that is refused is no silence: the agent
lives, its last good report stands, and how old that is, is said. Only an agent that has reported
nothing but absurdities for REFUSED_GRACE_S is as good as gone.

What replicas have counted is read, and checked, only now and then: counts only grow, so nothing is
missed, and reading them is four fifths of the work on a report.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay.v1.node_pb2 import Node, NodeRegistration, NodeReport, ReplicaStatus
from services.metrics import report_check
from services.metrics.loads import ReplicaCounts
from services.metrics.report_check import MAX_COUNT, Refusal, ReportError
from services.wire import names, outcomes

MAX_NODES = 10_000
FORGET_AFTER_S = 3600.0
REFUSED_GRACE_S = 60.0
"""Long enough for a driver that misreads to be put right, short enough that requests do not wait
for replicas that nobody can see."""

CLOCK_TOLERANCE_S = 0.25
"""How far the wall clock may wander before instants follow it, each time at a look at all nodes."""

_STATES = frozenset(ReplicaStatus.State.values())
_OUTCOMES = frozenset(outcomes.LABELS.values())

_deployment_id = report_check.deployment_id


class TooManyNodesError(Exception):
    """The table is full."""


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """What a snapshot counts of a replica.

    Attributes:
        deployment: id of its deployment.
        state: where it is in its life; a state that is not known here counts as unspecified.
        startup_s: how long it took to become READY; None if it never was.
    """

    deployment: str
    state: ReplicaStatus.State
    startup_s: float | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a report is good for.

    Attributes:
        first: whether it is the first one of its node.
        counts: what replicas have counted, oldest first: nothing, what this report says, or before
            it what the report before said of replicas that have left since.
    """

    first: bool
    counts: list[list[ReplicaCounts]]


@dataclass(slots=True)
class _Record:
    registration: NodeRegistration
    heard_s: float
    report: NodeReport | None = None
    report_s: float = 0.0
    replica_ids: list[str] = field(default_factory=list)
    counts: dict[str, ReplicaCounts] = field(default_factory=dict)
    counted_s: float = float("-inf")
    rows: list[ReplicaRow] | None = None
    slim: tuple[Node.State, Node] | None = None


class NodeTable:
    """The last report of every node."""

    def __init__(self, grace_s: float, count_interval_s: float = 0.0) -> None:
        """An empty table.

        Args:
            grace_s: how long a node may be silent before it is OFFLINE.
            count_interval_s: how often to read what a node's replicas have counted; 0 means with
                every report.
        """
        self._grace_s = grace_s
        self._count_interval_s = count_interval_s
        # The wall clock less the monotonic one.
        self._epoch_s = 0.0
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
            raise ReportError(Refusal.NAME, f"registration.node: {error}") from error
        if not registration.instance_id:
            raise ReportError(
                Refusal.NAME, "registration.instance_id is empty; it must be unique to the process"
            )
        record = self._records.get(node)
        if record is None:
            if len(self._records) >= MAX_NODES:
                raise TooManyNodesError(f"there are {MAX_NODES} nodes already; no more are taken")
            self._records[node] = _Record(registration, now_s)
            return node, False
        anew = record.registration.instance_id != registration.instance_id
        record.registration = registration
        if anew:
            record.counted_s = float("-inf")
        return node, anew

    def uncounted(self, node: str) -> list[ReplicaCounts]:
        """What the last report of a node counts, read or not; empty if it cannot be read."""
        record = self._records.get(node)
        if record is None or record.report is None:
            return []
        try:
            return _counts(record.report, record.counts)
        except ReportError:
            return []

    def report(self, now_s: float, wall_s: float, node: str, report: NodeReport) -> Taken:
        """Keeps a report in place of the one before.

        Raises:
            ReportError: if the report is not valid; nothing of it is kept.
        """
        record = self._records.get(node)
        if record is None:
            raise ReportError(Refusal.UNKNOWN_NODE, f"node {node} was forgotten: register again")
        record.heard_s = now_s
        report_check.check(report)
        replica_ids = [replica.replica_id for replica in report.replicas]
        changed = replica_ids != record.replica_ids
        counts: list[list[ReplicaCounts]] = []
        if changed or now_s - record.counted_s >= self._count_interval_s:
            now = _counts(report, record.counts)
            counts = [self.uncounted(node), now] if changed else [now]
            record.counts = {counted.replica_id: counted for counted in now}
            record.counted_s = now_s
        first = record.report is None
        record.report, record.report_s = report, now_s
        self.set_clock(now_s, wall_s)
        record.replica_ids = replica_ids
        record.rows = record.slim = None
        return Taken(first, counts)

    def set_clock(self, now_s: float, wall_s: float) -> None:
        """Follows the wall clock where it was set: what was heard before is dated by it, too.

        Otherwise a node heard of a second ago would look silent for ten minutes to whoever compares
        two instants that one snapshot gives.
        """
        epoch_s = wall_s - now_s
        if abs(epoch_s - self._epoch_s) > CLOCK_TOLERANCE_S:
            self._epoch_s = epoch_s
            for record in self._records.values():
                record.slim = None

    def forget(self, now_s: float) -> None:
        """Forgets nodes that have been silent for long."""
        silent = [n for n, r in self._records.items() if now_s - r.heard_s > FORGET_AFTER_S]
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
        """A node with all it reported; None if it is unknown or has not reported yet."""
        record = self._records.get(node)
        if record is None or record.report is None:
            return None
        message = _node(node, record, record.report, self._state(now_s, record), self._epoch_s)
        message.replicas.extend(record.report.replicas)
        return message

    def slim_nodes(self, now_s: float) -> list[Node]:
        """All nodes that have reported, by name, their replicas without what they have counted.

        Histograms and attempts are nine tenths of a report, and are in the loads already summed
        up. The messages are shared: they must not be changed.
        """
        found: list[Node] = []
        for node, record in sorted(self._records.items()):
            if record.report is None:
                continue
            state = self._state(now_s, record)
            if record.slim is None or record.slim[0] != state:
                message = _node(node, record, record.report, state, self._epoch_s)
                for replica in record.report.replicas:
                    _add_slim(message, replica)
                record.slim = (state, message)
            found.append(record.slim[1])
        return found

    def present(self, now_s: float) -> list[tuple[float, list[ReplicaRow]]]:
        """Age in seconds of the last good report, and the replicas, of each node not OFFLINE."""
        found: list[tuple[float, list[ReplicaRow]]] = []
        for record in self._records.values():
            if record.report is None or self._state(now_s, record) == Node.STATE_OFFLINE:
                continue
            if record.rows is None:
                record.rows = [_row(replica) for replica in record.report.replicas]
            found.append((now_s - record.report_s, record.rows))
        return found

    def age_s(self, now_s: float, node: str) -> float | None:
        """Seconds since a node's last good report; None if there was none."""
        record = self._records.get(node)
        return None if record is None or record.report is None else now_s - record.report_s

    def holder(self, replica_id: str) -> str | None:
        """Id of the node that last reported a replica; the one heard last, if several did."""
        found = [
            (record.report_s, node)
            for node, record in self._records.items()
            if replica_id in record.replica_ids
        ]
        return max(found)[1] if found else None

    def _state(self, now_s: float, record: _Record) -> Node.State:
        silent = now_s - record.heard_s > self._grace_s
        if silent or now_s - record.report_s > max(self._grace_s, REFUSED_GRACE_S):
            return Node.STATE_OFFLINE
        if record.report is not None and record.report.draining:
            return Node.STATE_DRAINING
        return Node.STATE_ACTIVE


def _counts(report: NodeReport, before: Mapping[str, ReplicaCounts]) -> list[ReplicaCounts]:
    """What a report counts, as plain values.

    Raises:
        ReportError: if something of it is not valid.
    """
    found: list[ReplicaCounts] = []
    for replica in report.replicas:
        try:
            found.append(_counted(replica, before.get(replica.replica_id)))
        except ReportError as error:
            raise ReportError(error.reason, f"{_where(replica)}.{error}") from error
    return found


def _counted(replica: ReplicaStatus, before: ReplicaCounts | None) -> ReplicaCounts:
    # Outcomes this version does not know are left out: labels of metrics are a closed set.
    attempts = dict(replica.attempt_counts)
    if not attempts.keys() <= _OUTCOMES:
        attempts = {outcome: n for outcome, n in attempts.items() if outcome in _OUTCOMES}
    least, most = min(attempts.values(), default=0), max(attempts.values(), default=0)
    if least < 0 or most > MAX_COUNT:
        raise ReportError(
            Refusal.NEGATIVE if least < 0 else Refusal.TOO_LARGE,
            f"attempt_counts = {attempts}: each must be 0 to {MAX_COUNT}",
        )
    queue_wait = before.queue_wait if before else None
    service_time = before.service_time if before else None
    return ReplicaCounts(
        replica.replica_id,
        _deployment_id(replica.deployment),
        attempts,
        report_check.histogram(replica.queue_wait, queue_wait, "queue_wait"),
        report_check.histogram(replica.service_time, service_time, "service_time"),
    )


def _where(replica: ReplicaStatus) -> str:
    return f"report.replicas[{names.quoted(replica.replica_id)}]"


def _row(replica: ReplicaStatus) -> ReplicaRow:
    startup_s = None
    if replica.HasField("startup_time"):
        startup_s = replica.startup_time.ToNanoseconds() / 1e9
    state = replica.state if replica.state in _STATES else ReplicaStatus.STATE_UNSPECIFIED
    return ReplicaRow(_deployment_id(replica.deployment), state, startup_s)


def _node(
    node: str, record: _Record, report: NodeReport, state: Node.State, epoch_s: float
) -> Node:
    """All of a node but its replicas; `epoch_s` as in NodeTable."""
    message = Node(
        name=names.node_name(node),
        slot_count=report.slot_count,
        gpus=report.gpus,
        state=state,
        applied_revision=report.applied_revision,
        agent_version=record.registration.agent_version,
        gpu_message=report.gpu_message,
        cpus=report.cpus,
        memory_bytes=report.memory_bytes,
        custom=report.custom,
        volumes=report.volumes,
        read_only_volumes=report.read_only_volumes,
        runtime=report.runtime,
        runtime_message=report.runtime_message,
    )
    message.last_report_time.FromNanoseconds(int((epoch_s + record.report_s) * 1e9))
    return message


def _add_slim(node: Node, replica: ReplicaStatus) -> None:
    added = node.replicas.add()
    added.CopyFrom(replica)
    added.ClearField("attempt_counts")
    added.ClearField("queue_wait")
    added.ClearField("service_time")
